// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"k8s.io/client-go/kubernetes"
)

// counts are numbers of API requests by "VERB resource" or "VERB resource/subresource".
type counts map[string]float64

// counted are the resources that the operator touches while it works; leases are counted for nobody, because the API
// server keeps one of its own.
var counted = map[string]bool{"secrets": true, "wechatapptokens": true, "events": true}

// apiServer reads the API server's own count of requests.
type apiServer struct {
	client kubernetes.Interface
	own    *tally
}

// look is the count at one moment.
type look struct {
	at    time.Time
	total counts
	own   counts
}

func (a apiServer) look(ctx context.Context) (look, error) {
	raw, err := a.client.CoreV1().RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return look{}, fmt.Errorf("reading the API server's metrics: %w", err)
	}
	total, err := parseRequests(raw)
	return look{at: time.Now(), total: total, own: a.own.snapshot()}, err
}

// parseRequests reads apiserver_request_total, without dry runs: an operator makes some when it starts, to try the admission policies.
func parseRequests(raw []byte) (counts, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("decoding the API server's metrics: %w", err)
	}
	family := families["apiserver_request_total"]
	if family == nil {
		return nil, fmt.Errorf("the API server's metrics have no apiserver_request_total")
	}
	out := counts{}
	for _, m := range family.GetMetric() {
		labels := map[string]string{}
		for _, l := range m.GetLabel() {
			labels[l.GetName()] = l.GetValue()
		}
		if counted[labels["resource"]] && labels["dry_run"] == "" {
			out[requestKind(labels["verb"], labels["resource"], labels["subresource"])] += m.GetCounter().GetValue()
		}
	}
	return out, nil
}

func requestKind(verb, resource, subresource string) string {
	if subresource != "" {
		resource += "/" + subresource
	}
	return verb + " " + resource
}

// idleTime is how long the API server is watched with no operator, to know what it does by itself.
const idleTime = 3 * time.Second

// noise is the number of requests per second with nobody there but the harness.
func (a apiServer) noise(ctx context.Context) (counts, error) {
	before, err := a.look(ctx)
	if err != nil {
		return nil, err
	}
	if err := pause(ctx, idleTime); err != nil {
		return nil, err
	}
	after, err := a.look(ctx)
	if err != nil {
		return nil, err
	}
	out := between(before, after, nil)
	for kind := range out {
		out[kind] /= after.at.Sub(before.at).Seconds()
	}
	return out, nil
}

// between is what the operator asked for between two looks: all requests less the harness's own, which it counts where it
// sends them, and less the noise of as many seconds. A watch is counted when it ends, so watches are left out.
func between(before, after look, noise counts) counts {
	out := counts{}
	seconds := after.at.Sub(before.at).Seconds()
	for kind, n := range after.total {
		n -= before.total[kind] + after.own[kind] - before.own[kind] + math.Round(noise[kind]*seconds)
		if n > 0 && !strings.HasPrefix(kind, "WATCH ") {
			out[kind] = n
		}
	}
	return out
}

// per divides by a number of tokens.
func (c counts) per(n int) counts {
	out := counts{}
	for kind, v := range c {
		out[kind] = v / float64(n)
	}
	return out
}

// sum leaves lists out: a process makes some when it starts, however many resources there are.
func (c counts) sum() float64 {
	total := 0.0
	for kind, n := range c {
		if !strings.HasPrefix(kind, "LIST ") {
			total += n
		}
	}
	return total
}

// tally counts the harness's own requests.
type tally struct {
	mu   sync.Mutex
	kind counts
}

func newTally() *tally { return &tally{kind: counts{}} }

func (t *tally) snapshot() counts {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.kind)
}

func (t *tally) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		if kind := kindOf(r); kind != "" {
			t.mu.Lock()
			t.kind[kind]++
			t.mu.Unlock()
		}
		return next.RoundTrip(r)
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// kindOf names a request as the API server's metrics do; "" for what is not counted.
func kindOf(r *http.Request) string {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case len(parts) > 2 && parts[0] == "api":
		parts = parts[2:]
	case len(parts) > 3 && parts[0] == "apis":
		parts = parts[3:]
	default:
		return ""
	}
	if len(parts) > 2 && parts[0] == "namespaces" {
		parts = parts[2:]
	}
	if !counted[parts[0]] {
		return ""
	}
	verb, subresource := r.Method, ""
	if len(parts) > 2 {
		subresource = parts[2]
	}
	switch {
	case verb == http.MethodGet && r.URL.Query().Get("watch") != "":
		verb = "WATCH"
	case verb == http.MethodGet && len(parts) == 1:
		verb = "LIST"
	}
	return requestKind(verb, parts[0], subresource)
}
