// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

func TestFailOver(t *testing.T) {
	for _, tt := range []struct {
		name   string
		server func(t *testing.T) *server
	}{
		{"refused", func(t *testing.T) *server { return &server{URL: refusing(t)} }},
		{"reset", func(t *testing.T) *server { return serveRaw(t, resetting) }},
		{"closed", func(t *testing.T) *server { return serveRaw(t, writing("")) }},
		{"untrusted", func(t *testing.T) *server { return &serveTLS(t, nil, answering).server }},
		{"500", func(t *testing.T) *server { return serve(t, saying(500, "")) }},
		{"503 with an errcode", func(t *testing.T) *server { return serve(t, saying(503, refusal(-1, ""))) }},
		{"404", func(t *testing.T) *server { return serve(t, saying(404, goodBody)) }},
		{"204", func(t *testing.T) *server { return serve(t, saying(204, "")) }},
		{"web page", func(t *testing.T) *server { return serve(t, saying(200, "<html>")) }},
		{"no token", func(t *testing.T) *server { return serve(t, saying(200, "{}")) }},
	} {
		for _, call := range fetches() {
			t.Run(tt.name+"/"+call.name, func(t *testing.T) {
				bad, good, third := tt.server(t), serve(t, answering), serve(t, answering)
				c := clientOf(t, bad, good, third)
				for range 3 {
					if _, err := call.do(t.Context(), c); err != nil {
						t.Fatal(err)
					}
				}
				if bad.hits.Load() > 1 {
					t.Errorf("the host that failed got %d requests", bad.hits.Load())
				}
				good.wantHits(t, 3)
				third.wantHits(t, 0)

				_, err := call.do(t.Context(), clientOf(t, bad, bad))
				e, ok := errors.AsType[*token.Error](err)
				if !ok || e.Reason != v1alpha1.ReasonUnreachable && e.Reason != v1alpha1.ReasonBadResponse || e.MaybeSent {
					t.Errorf("error %v", err)
				}
				cleanError(t, err)
			})
		}
	}
}

// TestNoFailOver: WeChat answered, so another host would say the same.
func TestNoFailOver(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"known": saying(200, refusal(40013, "")), "unknown": saying(200, refusal(7, "")), "busy": saying(200, refusal(-1, "")), "429": saying(429, ""),
	} {
		for _, call := range allCalls {
			t.Run(name+"/"+call.name, func(t *testing.T) {
				first, second := serve(t, handler), serve(t, answering)
				_, err := call.do(t.Context(), clientOf(t, first, second))
				if e, ok := errors.AsType[*token.Error](err); !ok || e.MaybeSent {
					t.Errorf("error %v", err)
				}
				first.wantHits(t, 1)
				second.wantHits(t, 0)
			})
		}
	}
}

// TestPreferredHost: the host that answered last is asked first, by every call, and an errcode is an answer.
func TestPreferredHost(t *testing.T) {
	var down [2]atomic.Bool
	host := func(i int) *server {
		return serve(t, func(w http.ResponseWriter, r *http.Request) {
			switch {
			case down[i].Load():
				w.WriteHeader(http.StatusBadGateway)
			case r.URL.Path == pathProbe:
				_, _ = w.Write([]byte(refusal(40001, "")))
			default:
				answering(w, r)
			}
		})
	}
	a, b := host(0), host(1)
	c := clientOf(t, a, b)
	step := func(do call, wantA, wantB int32) {
		t.Helper()
		_, _ = do.do(t.Context(), c)
		a.wantHits(t, wantA)
		b.wantHits(t, wantB)
	}
	stable, probe, legacy := allCalls[0], allCalls[1], allCalls[4]
	step(stable, 1, 0)
	down[0].Store(true)
	step(probe, 2, 1) // fails over
	step(stable, 2, 2)
	step(legacy, 2, 3)
	down[0].Store(false)
	step(probe, 2, 4) // and stays
	down[1].Store(true)
	step(legacy, 2, 5) // a mint does not fail over, but the next one begins elsewhere
	step(legacy, 3, 5)
	down[0].Store(true)
	step(legacy, 4, 5)
	down[1].Store(false)
	step(legacy, 4, 6)
}

func TestUnreachableHosts(t *testing.T) {
	refused := refusing(t)
	for _, call := range allCalls {
		_, err := call.do(t.Context(), newClient(t, Options{Endpoints: []string{refused}}))
		e := wantError(t, err, token.Transient, v1alpha1.ReasonUnreachable, 0)
		wantText(t, e, "No answer from "+refused[len("http://"):]+": the connection was refused.", "check DNS, firewall and HTTPS_PROXY")
		if !errors.Is(err, syscall.ECONNREFUSED) || e.MaybeSent {
			t.Errorf("%s: MaybeSent %v, cause %v", call.name, e.MaybeSent, e.Unwrap())
		}
	}
}

func TestInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int32
		c := bubble(t, Options{MaxInFlight: 3}, &host{handler: func(w http.ResponseWriter, r *http.Request) {
			n := now.Add(1)
			defer now.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			time.Sleep(time.Second)
			answering(w, r)
		}})
		start := time.Now()
		var wg sync.WaitGroup
		for i := range 12 {
			wg.Go(func() {
				if _, err := allCalls[i%len(allCalls)].do(t.Context(), c); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		took(t, start, 4*time.Second)
		if most.Load() != 3 || len(c.slots) != 0 {
			t.Errorf("%d requests were in flight, want 3; %d are left", most.Load(), len(c.slots))
		}
	})
}

// TestAttemptDeadline: each host has its own.
func TestAttemptDeadline(t *testing.T) {
	for _, call := range fetches() {
		for name, mute := range map[string]func() *host{
			"no answer":     func() *host { return &host{handler: hanging} },
			"no connection": func() *host { return &host{connect: time.Hour} },
			"half a body": func() *host {
				return &host{handler: func(w http.ResponseWriter, r *http.Request) {
					_, _ = w.Write([]byte(`{"access_token":"`))
					_ = http.NewResponseController(w).Flush()
					hanging(w, r)
				}}
			},
		} {
			t.Run(call.name+"/"+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					good := &host{}
					c := bubble(t, Options{Timeout: 2 * time.Second}, mute(), mute(), good)
					start := time.Now()
					if _, err := call.do(t.Context(), c); err != nil {
						t.Error(err)
					}
					took(t, start, 4*time.Second)
					good.wantHits(t, 1)
				})
				synctest.Test(t, func(t *testing.T) {
					c := bubble(t, Options{}, mute())
					start := time.Now()
					_, err := call.do(t.Context(), c)
					took(t, start, DefaultTimeout)
					wantText(t, wantError(t, err, token.Transient, v1alpha1.ReasonUnreachable, 0), "the time for an answer is over")
					if !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("error %v has no deadline", err)
					}
				})
			})
		}
	}
}

// TestFetchEndsWithItsCaller, wherever it is, and tries no other host.
func TestFetchEndsWithItsCaller(t *testing.T) {
	for _, call := range fetches() {
		for name, first := range map[string]func() *host{
			"answer":     func() *host { return &host{handler: hanging} },
			"connection": func() *host { return &host{connect: time.Hour} },
			"slot":       nil,
		} {
			for _, cause := range []error{context.Canceled, context.DeadlineExceeded} {
				t.Run(call.name+"/"+name+"/"+cause.Error(), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						h, second := &host{}, &host{}
						if first != nil {
							h = first()
						}
						c := bubble(t, Options{MaxInFlight: 1}, h, second)
						if first == nil {
							c.slots <- struct{}{}
						}
						ctx, cancel := context.WithTimeout(t.Context(), time.Second)
						defer cancel()
						if errors.Is(cause, context.Canceled) {
							ctx, cancel = context.WithCancel(t.Context())
							time.AfterFunc(time.Second, cancel)
						}
						start := time.Now()
						_, err := call.do(ctx, c)
						took(t, start, time.Second)
						e := wantError(t, err, token.Transient, v1alpha1.ReasonUnreachable, 0)
						if !errors.Is(err, cause) || e.MaybeSent {
							t.Errorf("MaybeSent %v, cause %v", e.MaybeSent, e.Unwrap())
						}
						if first != nil {
							wantText(t, e, "127.0.0.1:1") // the host that it was at
						}
						second.wantHits(t, 0)
						if second.dials.Load() != 0 {
							t.Error("it went on to the next host")
						}
					})
				})
			}
		}
	}
}

// TestEndedContext sends nothing, although a slot is free.
func TestEndedContext(t *testing.T) {
	s := serve(t, answering)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, call := range allCalls {
		_, err := call.do(ctx, clientOf(t, s))
		wantText(t, wantError(t, err, token.Transient, v1alpha1.ReasonUnreachable, 0), "cancelled before it was started")
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: error %v is not context.Canceled", call.name, err)
		}
	}
	s.wantHits(t, 0)
}
