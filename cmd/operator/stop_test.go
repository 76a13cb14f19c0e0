// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/wechat-token-operator/wechat-token-operator/internal/kube"
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
)

// stubManager takes a while to end, or does not end at all.
type stubManager struct {
	works bool
	takes time.Duration
	err   error

	runnables []manager.Runnable
}

func (m *stubManager) Add(r manager.Runnable) error {
	m.runnables = append(m.runnables, r)
	return nil
}

func (m *stubManager) Start(ctx context.Context) error {
	for _, r := range m.runnables {
		if m.works {
			if err := r.Start(ctx); err != nil {
				return err
			}
		}
	}
	<-ctx.Done()
	time.Sleep(m.takes)
	return m.err
}

// TestServe checks how long a manager may take to end.
func TestServe(t *testing.T) {
	errLate := errors.New("late")
	for _, tt := range []struct {
		name    string
		manager stubManager
		takes   time.Duration
		want    error // nil stands for success, errLate for an error of the manager
		fails   bool
	}{
		{name: "at once", manager: stubManager{works: true}, takes: 0},
		{name: "with an error", manager: stubManager{err: errLate}, takes: 0, want: errLate, fails: true},
		{name: "a standby", manager: stubManager{takes: time.Second}, takes: time.Second},
		{name: "the caches are never filled", manager: stubManager{takes: time.Hour}, takes: idleShutdownTimeout},
		{name: "a mint is under way", manager: stubManager{works: true, takes: shutdownTimeout}, takes: shutdownTimeout},
		{name: "a pass does not end", manager: stubManager{works: true, takes: time.Hour}, takes: shutdownTimeout + shutdownMargin, fails: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithCancel(t.Context())
				time.AfterFunc(time.Minute, stop)
				began := time.Now().Add(time.Minute)
				err := serve(ctx, &tt.manager, logr.Discard())
				if took := time.Since(began); took != tt.takes {
					t.Errorf("ended after %s, want %s", took, tt.takes)
				}
				if (err != nil) != tt.fails || !errors.Is(err, tt.want) && tt.want != nil {
					t.Errorf("error %v", err)
				}
				time.Sleep(time.Hour) // the stub must end before the bubble
			})
		})
	}
}

// TestGracePeriod checks that a mint and the write of its token have time to end before the kubelet kills the pod.
func TestGracePeriod(t *testing.T) {
	manifest, err := os.ReadFile("../../config/manager/manager.yaml")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`terminationGracePeriodSeconds: (\d+)`).FindSubmatch(manifest)
	if found == nil {
		t.Fatal("config/manager/manager.yaml names no grace period")
	}
	grace, _ := strconv.Atoi(string(found[1]))
	if takes := shutdownTimeout + shutdownMargin; takes+2*time.Second > time.Duration(grace)*time.Second {
		t.Errorf("the operator may take %s to end, which is too much for %d s", takes, grace)
	}
	if least := 10*time.Second + kube.AnswerWithin; shutdownTimeout < least {
		t.Errorf("a mint and the write of its token may take %s, but the operator waits for %s", least, shutdownTimeout)
	}
}

func TestServeReturnsTheManagersError(t *testing.T) {
	failed := errors.New("leader election lost")
	got := serve(t.Context(), failing{failed}, logr.Discard())
	if !errors.Is(got, failed) {
		t.Errorf("got %v", got)
	}
}

// failing is a manager that ends by itself.
type failing struct{ err error }

func (f failing) Add(manager.Runnable) error  { return nil }
func (f failing) Start(context.Context) error { return f.err }

// TestStopWithoutCaches stops an operator that may not list WeChatAppTokens, so that its caches are never filled.
func TestStopWithoutCaches(t *testing.T) {
	t.Parallel() // it waits for a process
	g := gomega.NewWithT(t)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `{"apiVersion":"v1","kind":"Status","status":"Failure","reason":"Forbidden","code":403}`)
	}))
	t.Cleanup(api.Close)
	p := startProcess(t, kubeconfigFor(api.URL), "--health-probe-bind-address=0")
	g.Eventually(p.logged, 10*time.Second).Should(gomega.ContainSubstring("Failed to watch"))
	p.terminate(t, idleShutdownTimeout+5*time.Second)
}

// TestStopWhileStarting stops an operator that has not reached its API server yet.
func TestStopWhileStarting(t *testing.T) {
	t.Parallel() // it waits for a process
	address, err := testenv.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	p := startProcess(t, kubeconfigFor("http://"+address), "--health-probe-bind-address=0")
	gomega.NewWithT(t).Eventually(p.logged, 10*time.Second).Should(gomega.ContainSubstring("the API server cannot be reached"))
	p.terminate(t, idleShutdownTimeout+5*time.Second)
}
