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
