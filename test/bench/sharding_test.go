// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	shardLabel  = "example.com/shard"
	shardedApps = 10
)

// tap is a way to the stand-in that counts the calls of one operator by appid.
type tap struct {
	url string

	mu    sync.Mutex
	calls map[string]int
}

func newTap(t *testing.T, s *stage) *tap {
	t.Helper()
	to, err := url.Parse(s.wechatURL)
	must(t, err)
	ca, err := os.ReadFile(s.wechatCA)
	must(t, err)
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		t.Fatal("the stand-in's certificate is none")
	}
	out := &tap{calls: map[string]int{}}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	proxy := &httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		body, err := io.ReadAll(r.In.Body)
		if err != nil {
			return // the operator gave up
		}
		out.note(body)
		r.Out.Body = io.NopCloser(bytes.NewReader(body))
	}}
	server := httptest.NewServer(proxy)
	t.Cleanup(func() { server.Close(); transport.CloseIdleConnections() })
	out.url = server.URL
	return out
}

func (p *tap) note(body []byte) {
	var call struct {
		AppID string `json:"appid"`
	}
	_ = json.Unmarshal(body, &call) // "" is counted too, and fails the test
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls[call.AppID]++
}

func (p *tap) count(a app) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls[a.id]
}

func (p *tap) apps() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.calls)
}

// shardOf puts the apps into two shards by turns.
func shardOf(i int) string { return []string{"a", "b"}[i%2] }

// Two operators with selectors that share nothing serve disjoint halves. A resource that moves from one to the other keeps
// its token: nothing is fetched or written for the move, and the first operator does not call for it again.
func TestTwoShardsServeDisjointHalvesAndHandOver(t *testing.T) {
	t.Parallel()
	s := newTestStage(t)
	must(t, s.addNamespaces(t.Context(), shardedApps))
	must(t, parallel(t.Context(), shardedApps, func(ctx context.Context, i int) error {
		token := appOf(i).token(shortInterval)
		token.Labels = map[string]string{shardLabel: shardOf(i)}
		if err := s.client.Create(ctx, credentialsOf(appOf(i))); err != nil {
			return err
		}
		return s.client.Create(ctx, token)
	}))
	o, err := s.observe(t.Context())
	must(t, err)
	t.Cleanup(o.stop)
	taps := map[string]*tap{}
	var p *operator
	for _, shard := range []string{"a", "b"} {
		taps[shard] = newTap(t, s)
		p = s.start(t, "--watch-label-selector", shardLabel+"="+shard, "--wechat-endpoints", taps[shard].url)
	}
	must(t, o.untilReady(t.Context(), p.process, shardedApps, testPatience))
	for i := range shardedApps {
		mine, other := taps[shardOf(i)], taps[shardOf(i+1)]
		if mine.count(appOf(i)) != 1 || other.count(appOf(i)) != 0 {
			t.Errorf("app %d: its shard called %d times, the other %d times; want 1 and 0", i, mine.count(appOf(i)), other.count(appOf(i)))
		}
	}
	for shard, tap := range taps {
		if tap.apps() != shardedApps/2 {
			t.Errorf("shard %s called for %d apps, want %d", shard, tap.apps(), shardedApps/2)
		}
	}
	s.handOver(t, o, p, taps)
}

// handOver moves the first app from shard a to shard b.
func (s *stage) handOver(t *testing.T, o *observer, p *operator, taps map[string]*tap) {
	t.Helper()
	moved, from, to := appOf(0), taps["a"], taps["b"]
	version := s.secretVersion(t, moved)
	token := moved.token(shortInterval)
	must(t, s.client.Get(t.Context(), moved.key(), token))
	base := token.DeepCopy()
	token.Labels[shardLabel] = "b"
	must(t, s.client.Patch(t.Context(), token, client.MergeFrom(base)))

	// Until the new shard has checked it, and the old one all that it kept: its timers went round once.
	must(t, o.until(t.Context(), p.process, testPatience, "both shards checked what is theirs", func() bool {
		for i := 2; i < shardedApps; i += 2 {
			if from.count(appOf(i)) < 2 {
				return false
			}
		}
		return to.count(moved) > 0
	}))
	if n := from.count(moved); n != 1 {
		t.Errorf("the shard that gave the app away called %d times for it, want the first issue alone", n)
	}
	issued, err := s.wechat.Tokens(t.Context(), moved.id)
	must(t, err)
	if len(issued) != 1 {
		t.Errorf("WeChat issued %d tokens, want 1: the move fetched one", len(issued))
	}
	if now := s.secretVersion(t, moved); now != version {
		t.Errorf("the move wrote the Secret: resourceVersion %s, then %s", version, now)
	}
}

func (s *stage) secretVersion(t *testing.T, a app) string {
	t.Helper()
	secret := &corev1.Secret{}
	must(t, s.client.Get(t.Context(), a.key(), secret))
	return secret.ResourceVersion
}
