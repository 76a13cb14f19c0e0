// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// TestForwarderLargeClientHelloIsLost: a Forwarder gets through a network that loses large ClientHellos, and remembers what worked.
func TestForwarderLargeClientHelloIsLost(t *testing.T) {
	for name, once := range map[string]bool{"again": false, "once": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serveTLS(t, nil, answering)
			network, at := carried(t, s)
			f, err := NewForwarder(Options{Endpoints: []string{at}, CAFile: s.caFile(t), Timeout: 2 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(f.CloseIdle)
			for i := range 3 {
				res, sends, err := f.Send(t.Context(), &Outgoing{Method: http.MethodGet, Path: pathProbe, Header: http.Header{}, Once: once})
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(res.Body)
				if err != nil || string(body) != probeBody {
					t.Errorf("%q, %v", body, err)
				}
				_ = res.Body.Close()
				if first := i == 0; first != (sends == 2) {
					t.Errorf("call %d was sent %d times", i, sends)
				}
			}
			s.wantHits(t, 3)
			connections := int32(1)
			if once {
				connections = 3
			}
			wantHellos(t, network, 1, connections)
		})
	}
}

// TestForwarderBodyThatBreaks: a sender whose body breaks off does not make the next calls go to another host.
func TestForwarderBodyThatBreaks(t *testing.T) {
	answer := func(name string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(io.Discard, r.Body); err == nil {
				_, _ = io.WriteString(w, name)
			}
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	f, err := NewForwarder(Options{Endpoints: []string{answer("first"), answer("second")}, Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.CloseIdle)
	broken := func() io.Reader { return io.MultiReader(strings.NewReader("x"), iotest.ErrReader(io.ErrUnexpectedEOF)) }
	out := &Outgoing{Method: http.MethodPost, Path: pathProbe, Header: http.Header{}, Length: 10, Body: broken}
	res, sends, err := f.Send(t.Context(), out)
	if err == nil {
		_ = res.Body.Close()
	}
	if err == nil || sends != 1 {
		t.Fatalf("%d sends, %v", sends, err)
	}
	res, _, err = f.Send(t.Context(), &Outgoing{Method: http.MethodGet, Path: pathProbe, Header: http.Header{}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if body, _ := io.ReadAll(res.Body); string(body) != "first" {
		t.Errorf("the next call went to the %s host", body)
	}
}
