// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
)

// TestRedial checks that an informer's request reaches the API server within a second of its return, however long it was away, and that
// other requests fail at once.
func TestRedial(t *testing.T) {
	const (
		watch = "/api/v1/secrets?watch=true"
		list  = "/api/v1/secrets?limit=500&resourceVersion=0"
		ms    = time.Millisecond
	)
	for _, tt := range []struct {
		name, method, url string
		// away is how long the API server cannot be reached, and ends when the caller gives up; 0 for never.
		away, ends time.Duration
		fails      bool
		takes      time.Duration
	}{
		{name: "there", method: http.MethodGet, url: watch},
		{name: "a watch", method: http.MethodGet, url: watch, away: 100*time.Second + ms, takes: 101 * time.Second},
		{name: "an informer's list", method: http.MethodGet, url: list, away: time.Minute, takes: time.Minute},
		{name: "away for too long", method: http.MethodGet, url: watch, away: time.Hour, fails: true, takes: redialFor},
		{name: "the informer ends", method: http.MethodGet, url: watch, away: time.Hour, ends: 1500 * ms, fails: true, takes: 1500 * ms},
		{name: "a list without a cache", method: http.MethodGet, url: "/api/v1/secrets?limit=1", away: time.Hour, fails: true},
		{name: "a write", method: http.MethodPatch, url: "/api/v1/namespaces/a/secrets/b", away: time.Hour, fails: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begun := time.Now()
				refused := errors.New("connection refused")
				transport := WithRedial(logr.Discard())(roundTripper(func(*http.Request) (*http.Response, error) {
					if time.Since(begun) < tt.away {
						return nil, refused
					}
					return &http.Response{Body: http.NoBody}, nil
				}))
				ctx := t.Context()
				if tt.ends > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, tt.ends)
					defer cancel()
				}
				res, err := transport.RoundTrip(httptest.NewRequestWithContext(ctx, tt.method, tt.url, nil))
				if err == nil {
					_ = res.Body.Close()
				}
				if errors.Is(err, refused) != tt.fails {
					t.Errorf("error %v", err)
				}
				if took := time.Since(begun); took != tt.takes {
					t.Errorf("it took %s, want %s", took, tt.takes)
				}
			})
		})
	}
}
