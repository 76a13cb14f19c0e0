// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// An answer that switches protocols has no end, and net/http leaves its connection to the caller, so that no deadline ends a read from it.
// It must not hold a call, and with it one of the slots, for ever.
func TestProtocolSwitch(t *testing.T) {
	for _, call := range allCalls {
		t.Run(call.name, func(t *testing.T) {
			s := serveRaw(t, func(conn net.Conn, _ *http.Request) bool {
				_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
				_, _ = io.Copy(io.Discard, conn) // until the client closes it
				return false
			})
			c := newClient(t, Options{Endpoints: []string{s.URL}, Timeout: time.Second})
			ended := make(chan error, 1)
			go func() {
				_, err := call.do(t.Context(), c)
				ended <- err
			}()
			select {
			case err := <-ended:
				wantText(t, wantError(t, err, token.Transient, v1alpha1.ReasonBadResponse, 0), "its HTTP status is 101")
			case <-time.After(12 * time.Second):
				t.Fatal("the call does not end")
			}
			if n := len(c.slots); n != 0 {
				t.Errorf("%d slots are taken", n)
			}
		})
	}
}

// An answer whose Date cannot be WeChat's time counts as one without a Date: it leaves the clock as it is, and the token gets the times that
// it has.
func TestImpossibleDate(t *testing.T) {
	for date, believed := range map[string]bool{
		"Thu, 01 Jan 1970 00:00:00 GMT": false,
		"Mon, 31 Dec 1979 23:59:59 GMT": false,
		"Tue, 01 Jan 1980 00:00:00 GMT": true,
		"Thu, 31 Dec 2099 23:59:59 GMT": true,
		"Fri, 01 Jan 2100 00:00:00 GMT": false,
		"Fri, 31 Dec 9999 23:59:59 GMT": false,
		"Mon, 01 Jan 0001 00:00:00 GMT": false,
		"Sat, 01 Jan 0000 00:00:00 GMT": false,
	} {
		for _, call := range issuing() {
			c := clientOf(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Date", date)
				answering(w, r)
			}))
			tok, err := call.do(t.Context(), c)
			if err != nil {
				t.Fatalf("%s, %s: %v", date, call.name, err)
			}
			now, _ := c.Clock()
			for _, at := range []time.Time{now, tok.IssuedAt} {
				if local := time.Since(at).Abs() < time.Minute; local == believed {
					t.Errorf("%s, %s: the time is %v", date, call.name, at)
				}
			}
		}
	}
}
