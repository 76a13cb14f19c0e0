// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// drop is a relay that does nothing, and a writer that nobody reads.
type drop struct{ header http.Header }

func (drop) relay(_ http.ResponseWriter, _ *http.Request, f forward) { _ = f.query(f.token) }
func (d drop) Header() http.Header                                   { return d.header }
func (drop) Write(b []byte) (int, error)                             { return len(b), nil }
func (drop) WriteHeader(int)                                         {}

// BenchmarkServe measures what the gateway adds to a call before it is passed on, and what an answer of its own takes.
func BenchmarkServe(b *testing.B) {
	for name, target := range map[string]string{
		"by token":   "/wxa/getwxacode?access_token=" + bought("shop-api", theKey, now) + "&a=b",
		"by account": "/wxa/getwxacode?a=b",
		"buy":        "/cgi-bin/token?grant_type=client_credential&appid=" + appID + "&secret=" + theKey,
	} {
		b.Run(name, func(b *testing.B) {
			reviews := NewReviews(ReviewsOptions{Tokens: &fakeTokenReviews{}, Audience: audience})
			g := New(Options{
				Source: fixedSource{frontPolicy()}, Relay: drop{}, Now: func() time.Time { return now }, Reviewer: reviews,
			})
			r := httptest.NewRequest(http.MethodGet, target, nil)
			if name == "by account" {
				r.Header.Set("Authorization", "Bearer "+accountToken("a", 24*time.Hour))
			}
			b.ReportAllocs()
			for b.Loop() {
				g.ServeHTTP(drop{http.Header{}}, r)
			}
		})
	}
}
