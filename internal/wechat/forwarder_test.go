// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"io"
	"net/http"
	"testing"
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
