// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
)

// stubCache notes when it was started.
type stubCache struct {
	cache.Cache

	started atomic.Pointer[time.Time]
}

func (c *stubCache) Start(context.Context) error {
	now := time.Now()
	c.started.Store(&now)
	return nil
}

func (c *stubCache) WaitForCacheSync(context.Context) bool { return c.started.Load() != nil }

var tokens = schema.GroupResource{Group: "wechat.apptoken.dev", Resource: "wechatapptokens"}

// TestStartingCache follows a start through what can stand in its way.
func TestStartingCache(t *testing.T) {
	var (
		refused   = errors.New("connection refused")
		missing   = apierrors.NewGenericServerResponse(http.StatusNotFound, "get", tokens, "", "404 page not found", 0, true)
		broken    = apierrors.NewInternalError(errors.New("etcd"))
		forbidden = apierrors.NewForbidden(tokens, "", nil)
	)
	for _, tt := range []struct {
		name    string
		answers []error // the last one is repeated
		starts  bool
		logged  []string
	}{
		{name: "all is well", answers: []error{nil}, starts: true},
		{name: "the API server is away", answers: []error{refused, refused, broken, nil}, starts: true, logged: []string{"refused", "etcd"}},
		{name: "the CRD is missing", answers: []error{missing, missing, nil}, starts: true, logged: []string{InstallCRD}},
		{name: "the CRD stays away", answers: []error{missing}, logged: []string{InstallCRD}},
		{name: "both", answers: []error{refused, missing, refused, nil}, starts: true, logged: []string{"refused", InstallCRD, "refused"}},
		{name: "the rights are missing", answers: []error{forbidden}, starts: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithTimeout(t.Context(), time.Minute)
				defer stop()
				var lines []string
				inner, asked := &stubCache{}, 0
				c := &StartingCache{
					Cache:    inner,
					log:      funcr.New(func(_, args string) { lines = append(lines, args) }, funcr.Options{}),
					interval: startInterval,
				}
				c.list = func(context.Context) error {
					err := tt.answers[min(asked, len(tt.answers)-1)]
					asked++
					time.AfterFunc(startInterval/2, func() { checkReady(t, c, err) }) //nolint:contextcheck // the test's context serves
					return err
				}
				began := time.Now()
				if err := c.Start(ctx); err != nil {
					t.Error(err)
				}
				time.Sleep(startInterval) // for the last check
				started := inner.started.Load()
				if tt.starts != (started != nil) {
					t.Errorf("started at %v", started)
				}
				if want := startInterval * time.Duration(len(tt.answers)-1); started != nil && started.Sub(began) != want {
					t.Errorf("started after %s, want %s", started.Sub(began), want)
				}
				if len(lines) != len(tt.logged) {
					t.Fatalf("logged %q, want %q", lines, tt.logged)
				}
				for i, line := range lines {
					if !strings.Contains(line, tt.logged[i]) {
						t.Errorf("logged %q, want %q", line, tt.logged[i])
					}
				}
			})
		})
	}
}

// checkReady compares the readiness check with the last answer of the API server.
func checkReady(t *testing.T, c *StartingCache, answer error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz/caches", nil)
	if err != nil {
		t.Error(err)
		return
	}
	got, want := c.Ready(req), obstacle(answer)
	if (got == nil) != (want == nil) || got != nil && got.Error() != want.Error() {
		t.Errorf("readiness: %v, want %v", got, want)
	}
}

// TestFirstNamespaceHidesNoMissingCRD holds that each namespace is asked, because one that may not be read does not tell of the CRD.
func TestFirstNamespaceHidesNoMissingCRD(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/unbound/") {
			http.Error(w, "forbidden", http.StatusForbidden)
			return
		}
		http.NotFound(w, r)
	}))
	t.Cleanup(server.Close)
	namespaces := []string{"unbound", "shop"}
	mapper, err := NewMapper(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, transport := range map[string]func(http.RoundTripper) http.RoundTripper{
		"as it is":        func(next http.RoundTripper) http.RoundTripper { return next },
		"as in a process": Namespaces(namespaces, lists(), logr.Discard(), func(string, bool) {}),
	} {
		config := &rest.Config{Host: server.URL, WrapTransport: transport}
		starting, err := NewStartingCache(config, cache.Options{Mapper: mapper}, namespaces, logr.Discard())
		if err != nil {
			t.Fatal(err)
		}
		if err := obstacle(starting.list(t.Context())); !errors.Is(err, errNoCRD) {
			t.Errorf("%s: %v, want %v", name, err, errNoCRD)
		}
	}
}
