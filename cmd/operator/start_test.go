// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
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
		{name: "the CRD is missing", answers: []error{missing, missing, nil}, starts: true, logged: []string{installCRD}},
		{name: "the CRD stays away", answers: []error{missing}, logged: []string{installCRD}},
		{name: "both", answers: []error{refused, missing, refused, nil}, starts: true, logged: []string{"refused", installCRD, "refused"}},
		{name: "the rights are missing", answers: []error{forbidden}, starts: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithTimeout(t.Context(), time.Minute)
				defer stop()
				var lines []string
				inner, asked := &stubCache{}, 0
				c := &startingCache{
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
func checkReady(t *testing.T, c *startingCache, answer error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz/caches", nil)
	if err != nil {
		t.Error(err)
		return
	}
	got, want := c.ready(req), obstacle(answer)
	if (got == nil) != (want == nil) || got != nil && got.Error() != want.Error() {
		t.Errorf("readiness: %v, want %v", got, want)
	}
}

// TestMissingCRD starts operators in a cluster without the CRD, one for all namespaces and one for a list of them. Each must say how to
// install it, and serve once it is installed.
func TestMissingCRD(t *testing.T) {
	g := gomega.NewWithT(t)
	env := testenv.ForTest(t, testenv.Bare())
	probe := &http.Client{Timeout: 5 * time.Second}
	ready := func(address string) func() string {
		return func() string {
			res, err := probe.Get("http://" + address + "/readyz/caches")
			if err != nil {
				return err.Error()
			}
			defer res.Body.Close() //nolint:errcheck // it is read
			body, err := io.ReadAll(res.Body)
			g.Expect(err).NotTo(gomega.HaveOccurred())
			return string(body)
		}
	}
	processes := map[string]*process{}
	for _, args := range [][]string{nil, {"--namespaces=default"}} {
		address, err := testenv.FreeAddress()
		if err != nil {
			t.Fatal(err)
		}
		processes[address] = startProcess(t, env.KubeConfig, append(args, "--health-probe-bind-address="+address)...)
	}
	for address, p := range processes {
		g.Eventually(ready(address), 20*time.Second).Should(gomega.ContainSubstring(installCRD))
		g.Expect(strings.Count(p.logged(), installCRD)).To(gomega.Equal(1), "one line of the log tells")
		g.Expect(p.logged()).NotTo(gomega.ContainSubstring("a namespace of --namespaces"), "the namespace is not the reason")
	}

	path := filepath.Join(t.TempDir(), "kubeconfig")
	g.Expect(os.WriteFile(path, env.KubeConfig, 0o600)).To(gomega.Succeed())
	args := append(strings.Fields(installCRD)[1:], "--kubeconfig="+path)
	kubectl := exec.CommandContext(t.Context(), filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kubectl"), args...) //nolint:gosec // a test's
	kubectl.Dir = "../.."
	out, err := kubectl.CombinedOutput()
	g.Expect(err).NotTo(gomega.HaveOccurred(), string(out))
	for address, p := range processes {
		g.Eventually(ready(address), 20*time.Second).Should(gomega.Equal("ok"))
		p.terminate(t, 10*time.Second)
	}

	discovery, err := env.Requests(func(r testenv.Request) bool {
		return strings.HasPrefix(r.UserAgent, "wechat-token-operator/") && r.Object.Resource == ""
	})
	g.Expect(err).NotTo(gomega.HaveOccurred())
	g.Expect(discovery).To(gomega.BeEmpty(), "the operator needs no discovery")
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
	opts := parse(t, "--namespaces=unbound,shop")
	if err := opts.complete(); err != nil {
		t.Fatal(err)
	}
	for name, transport := range map[string]func(http.RoundTripper) http.RoundTripper{
		"as it is":        func(next http.RoundTripper) http.RoundTripper { return next },
		"as in a process": newNamespaces(opts.namespaceList, logr.Discard(), func(string, bool) {}),
	} {
		_, starting, err := newManager(&rest.Config{Host: server.URL, WrapTransport: transport}, opts, logr.Discard())
		if err != nil {
			t.Fatal(err)
		}
		if err := obstacle(starting.list(t.Context())); !errors.Is(err, errNoCRD) {
			t.Errorf("%s: %v, want %v", name, err, errNoCRD)
		}
	}
}

// TestCachesMayTakeTheirTime holds that the process does not end because its caches are not filled, as controller-runtime would end
// it after two minutes.
func TestCachesMayTakeTheirTime(t *testing.T) {
	opts := parse(t)
	if err := opts.complete(); err != nil {
		t.Fatal(err)
	}
	mgr, _, err := newManager(&rest.Config{Host: "http://127.0.0.1:1"}, opts, logr.Discard())
	if err != nil {
		t.Fatal(err)
	}
	if got := mgr.GetControllerOptions().CacheSyncTimeout; got < 365*24*time.Hour {
		t.Errorf("the controller waits %s for its caches", got)
	}
}
