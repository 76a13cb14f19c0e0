// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestDeadline checks that a request without an answer is given up, later if it is an informer's, and that an answer which has begun may take
// longer.
func TestDeadline(t *testing.T) {
	const within = 200 * time.Millisecond
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun := r.URL.Path == "/begun"
		if begun {
			_ = http.NewResponseController(w).Flush()
		}
		if r.URL.Query().Has("never") {
			<-r.Context().Done()
			return
		}
		select {
		case <-time.After(3 * within):
			_, _ = io.WriteString(w, "done")
		case <-r.Context().Done():
		}
	}))
	defer server.Close()
	client := &http.Client{Transport: &deadline{next: server.Client().Transport, within: within, informedWithin: 6 * within}}
	for _, tt := range []struct {
		method, url string
		givenUp     bool
	}{
		{http.MethodPatch, "/", true},
		{http.MethodGet, "/", true},
		{http.MethodGet, "/begun", false},
		{http.MethodGet, "/?watch=true", false},
		{http.MethodGet, "/?limit=500&resourceVersion=0", false},
		{http.MethodGet, "/?watch=true&never", true},
		{http.MethodGet, "/?limit=500&resourceVersion=0&never", true},
	} {
		t.Run(tt.method+tt.url, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), tt.method, server.URL+tt.url, nil)
			if err != nil {
				t.Fatal(err)
			}
			res, err := client.Do(req)
			if got := errors.Is(err, errNoAnswer); got != tt.givenUp {
				t.Fatalf("error %v", err)
			}
			if err != nil {
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%v does not say that it is about time", err)
				}
				return
			}
			defer res.Body.Close() //nolint:errcheck // it is read
			if body, err := io.ReadAll(res.Body); err != nil || string(body) != "done" {
				t.Errorf("body %q, error %v", body, err)
			}
		})
	}
}

// TestDeadlineEndsTheContext checks that the context of a request ends with its answer.
func TestDeadlineEndsTheContext(t *testing.T) {
	var ctx context.Context
	transport := WithDeadline(roundTripper(func(req *http.Request) (*http.Response, error) {
		ctx = req.Context()
		return &http.Response{Body: io.NopCloser(strings.NewReader("answer"))}, nil
	}))
	res, err := transport.RoundTrip(httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil))
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(res.Body); err != nil || string(body) != "answer" || ctx.Err() != nil {
		t.Errorf("body %q, error %v, context %v", body, err, ctx.Err())
	}
	if err := res.Body.Close(); err != nil || ctx.Err() == nil {
		t.Errorf("closed: %v, context %v", err, ctx.Err())
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }
