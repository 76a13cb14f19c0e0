// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

const (
	// checkedApps are only checked in the test, rotatedApps only rotated.
	checkedApps, rotatedApps = 40, 40
	// shortLife is replaced at half of it, about when the others are checked.
	shortLife     = time.Minute
	shortInterval = 30 * time.Second
	longInterval  = time.Hour
	testPatience  = 90 * time.Second
)

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard()) // or controller-runtime complains after a while
	// What looks for changed objects of the caches keeps copies of them, which would be measured.
	if err := os.Unsetenv("KUBE_CACHE_MUTATION_DETECTOR"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// build makes the programs that the tests start, from this tree.
func build(t *testing.T) programs {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", dir, "./cmd/operator", "./hack/fake-wechat")
	cmd.Dir = filepath.Join("..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return programs{operator: filepath.Join(dir, "operator"), fakeWeChat: filepath.Join(dir, "fake-wechat")}
}

func newTestStage(t *testing.T) *stage {
	t.Helper()
	dir := t.TempDir()
	s, err := newStage(t.Context(), build(t), dir, stageOptions{life: tokenLife})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// start runs an operator until the end of the test.
func (s *stage) start(t *testing.T, args ...string) *operator {
	t.Helper()
	p, err := s.startOperator(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			log, err := os.ReadFile(p.log)
			t.Logf("the log of %s (%v):\n%s", p.name, err, log)
		}
	})
	return p
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// The promise of the design in API requests and WeChat calls, counted by the API server and the stand-in themselves for the
// real binary with its default flags: 3 for a first issue, 2 for a rotation, none for a check that finds nothing new.
func TestCostOfATokenInRequestsAndCalls(t *testing.T) {
	t.Parallel()
	s := newTestStage(t)
	const n = checkedApps + rotatedApps
	must(t, s.addNamespaces(t.Context(), n))
	must(t, parallel(t.Context(), n, func(ctx context.Context, i int) error {
		a := appOf(i)
		if i < checkedApps {
			return s.add(ctx, a, shortInterval)
		}
		if err := s.wechat.SetApp(ctx, wechattest.App{ID: a.id, Secret: a.secret, Life: shortLife}); err != nil {
			return err
		}
		return s.add(ctx, a, longInterval)
	}))
	o, err := s.observe(t.Context())
	must(t, err)
	t.Cleanup(o.stop)
	m, err := s.meter(t.Context())
	must(t, err)

	must(t, m.begin(t.Context(), nil))
	p := s.start(t)
	must(t, o.untilReady(t.Context(), p.process, n, testPatience))
	m.wantRequests(t, "first issues", counts{"GET secrets": n, "POST secrets": n, "PATCH wechatapptokens/status": n})
	m.wantCalls(t, "first issues", n)

	must(t, m.begin(t.Context(), p.process))
	must(t, o.until(t.Context(), p.process, testPatience, "all were checked or rotated", func() bool {
		calls, err := s.calls(t.Context())
		must(t, err)
		return o.rotated() >= rotatedApps && calls-m.calls >= n
	}))
	m.wantRequests(t, "rotations and checks", counts{"PATCH secrets": rotatedApps, "PATCH wechatapptokens/status": rotatedApps})
	m.wantCalls(t, "rotations and checks", n)
}

// wantRequests waits until the last request has landed. A request too many is never forgiven. The lists of a start are not
// per token.
func (m *meter) wantRequests(t *testing.T, of string, want counts) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		after, err := m.api.look(t.Context())
		must(t, err)
		got := between(m.before, after, m.quiet)
		maps.DeleteFunc(got, func(kind string, _ float64) bool { return strings.HasPrefix(kind, "LIST ") })
		if maps.Equal(got, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("API requests of %s: %v, want %v", of, got, want)
		}
		must(t, pause(t.Context(), 50*time.Millisecond))
	}
}

func (m *meter) wantCalls(t *testing.T, of string, want int) {
	t.Helper()
	calls, err := m.stage.calls(t.Context())
	must(t, err)
	if calls-m.calls != want {
		t.Errorf("WeChat calls of %s: %d, want %d", of, calls-m.calls, want)
	}
}
