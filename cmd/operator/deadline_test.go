// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// A request that gets no answer is given up, a watch is not, and an answer that has begun may go on.
func TestDeadline(t *testing.T) {
	const within = 200 * time.Millisecond
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun := r.URL.Path == "/begun"
		if begun {
			_ = http.NewResponseController(w).Flush()
		}
		select {
		case <-time.After(3 * within):
			_, _ = io.WriteString(w, "done")
		case <-r.Context().Done():
		}
	}))
	defer server.Close()
	client := &http.Client{Transport: &deadline{next: server.Client().Transport, within: within}}
	for _, tt := range []struct {
		method, url string
		givenUp     bool
	}{
		{http.MethodPatch, "/", true},
		{http.MethodGet, "/", true},
		{http.MethodGet, "/begun", false},
		{http.MethodGet, "/?watch=true", false},
		{http.MethodGet, "/?limit=500&resourceVersion=0", false},
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
				return
			}
			defer res.Body.Close() //nolint:errcheck // it was read
			if body, err := io.ReadAll(res.Body); err != nil || string(body) != "done" {
				t.Errorf("body %q, error %v", body, err)
			}
		})
	}
}
