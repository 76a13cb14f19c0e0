// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// observed collects what a client's observer is told.
type observed struct {
	mu    sync.Mutex
	calls []Call
}

func (o *observed) add(c Call) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.calls = append(o.calls, c)
}

// take gives the calls since the last time, without what differs each time.
func (o *observed) take(t *testing.T, hosts []string) (out []Call) {
	t.Helper()
	names := []string{endpointName(pathStable), endpointName(pathLegacy), endpointName(pathProbe), endpointName(pathTicket)}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range o.calls {
		if !slices.Contains(names, c.Endpoint) || !slices.Contains(hosts, c.Host) || c.Duration <= 0 {
			t.Errorf("an observer was told of %+v", c)
		}
		c.Host, c.Duration = "", 0
		out = append(out, c)
	}
	o.calls = nil
	return out
}

// hostsOf returns the hosts of the configured endpoints.
func hostsOf(c *Client) []string {
	hosts := make([]string, 0, len(c.endpoints))
	for _, e := range c.endpoints {
		hosts = append(hosts, e.Host)
	}
	return hosts
}

// Each request to each endpoint is told once, with what came of it.
func TestObserve(t *testing.T) {
	reply := make(chan http.HandlerFunc, 1)
	live := serve(t, func(w http.ResponseWriter, r *http.Request) { (<-reply)(w, r) })
	seen := &observed{}
	c := newClient(t, Options{Endpoints: []string{refusing(t), live.URL}, Observe: seen.add})
	for _, tt := range []struct {
		name   string
		answer http.HandlerFunc
		do     func() error
		want   []Call
	}{
		{
			name: "the next host answers", answer: answering,
			do:   func() error { _, err := c.StableToken(t.Context(), testAccount, false); return err },
			want: []Call{{Endpoint: "stable_token", Outcome: "Unreachable"}, {Endpoint: "stable_token", Outcome: OutcomeSuccess}},
		},
		{
			name: "an errcode", answer: saying(http.StatusOK, `{"errcode":40125,"errmsg":"no rid: 1"}`),
			do:   func() error { _, err := c.LegacyToken(t.Context(), testAccount, time.Time{}); return err },
			want: []Call{{Endpoint: "token", Outcome: "AppSecretInvalid", Code: 40125}},
		},
		{
			name: "a probe", answer: saying(http.StatusOK, `{"errcode":40001,"errmsg":"no"}`),
			do:   func() error { return c.ProbeToken(t.Context(), token.NewValue(storedToken)) },
			want: []Call{{Endpoint: "get_api_domain_ip", Outcome: "TokenRejected", Code: 40001}},
		},
		{
			name: "a ticket", answer: saying(http.StatusOK, `{"errcode":48001,"errmsg":"api unauthorized"}`),
			do: func() error {
				_, err := c.Ticket(t.Context(), token.NewValue(storedToken), v1alpha1.TicketSDK)
				return err
			},
			want: []Call{{Endpoint: "ticket", Outcome: "UnsupportedAccount", Code: 48001}},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			reply <- tt.answer
			err := tt.do()
			if last := tt.want[len(tt.want)-1]; (err == nil) != (last.Outcome == OutcomeSuccess) {
				t.Fatal(err)
			}
			if got := seen.take(t, hostsOf(c)); !slices.Equal(got, tt.want) {
				t.Errorf("told of %+v, want %+v", got, tt.want)
			}
		})
	}
}

// A caller that goes is no failure of WeChat's, a deadline is.
func TestObserveCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then does the server see the caller go
		cancel()
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	})
	seen := &observed{}
	c := newClient(t, Options{Endpoints: []string{s.URL}, Observe: seen.add})
	if _, err := c.StableToken(ctx, testAccount, false); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	want := []Call{{Endpoint: "stable_token", Outcome: OutcomeCancelled}}
	if got := seen.take(t, hostsOf(c)); !slices.Equal(got, want) {
		t.Errorf("told of %+v, want %+v", got, want)
	}
}

func TestHosts(t *testing.T) {
	c := newClient(t, Options{Endpoints: []string{"https://a.example.com", "https://b.example.com:8443"}})
	if got := strings.Join(hostsOf(c), " "); got != "a.example.com b.example.com:8443" {
		t.Errorf("hosts: %s", got)
	}
}

func TestKnownCode(t *testing.T) {
	for code, want := range map[int]bool{-1: true, 40164: true, 42001: true, 48001: true, 0: false, 12345: false} {
		if KnownCode(code) != want {
			t.Errorf("%d is known: %v", code, !want)
		}
	}
}
