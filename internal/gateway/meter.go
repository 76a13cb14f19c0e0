// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat"
)

// Meter counts and times calls. No metric has more than two of: the client, the path and the outcome, because their product is large.
type Meter struct {
	calls, requests, refused *prometheus.CounterVec
	added, upstream          prometheus.Histogram
	repeated, dropped        prometheus.Counter
	paths                    map[string]bool

	// clients has those that calls counts.
	clients sync.Map
}

// NewMeter returns a Meter whose metrics are registered, with one that tells the version.
func NewMeter(registry prometheus.Registerer, version string) (*Meter, error) {
	m := &Meter{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wechat_gateway_calls_total",
			Help: "Calls by the WeChatAppClient whose they are, empty while it is not known, and by what became of them.",
		}, []string{"client_namespace", "client", "outcome"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wechat_gateway_requests_total",
			Help: "Calls by path and by the errcode of the answer, which is empty for none. Undocumented ones are other.",
		}, []string{"path", "errcode"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wechat_gateway_refusals_total",
			Help: "Calls that the gateway refused or could not serve, by the reason in the audit log.",
		}, []string{"reason"}),
		added: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "wechat_gateway_added_duration_seconds",
			Help:    "Time that a call took in the gateway, without the time that it waited for WeChat.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .1, .5, 1, 5},
		}),
		upstream: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "wechat_gateway_upstream_duration_seconds",
			Help:    "Time that a call waited for WeChat.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}),
		repeated: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "wechat_gateway_repeated_calls_total",
			Help: "Calls that were sent to WeChat more than once, for example because their token had been replaced.",
		}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "wechat_gateway_audit_lines_dropped_total",
			Help: "Lines of the audit log that were lost because its file or pipe took no more.",
		}),
		paths: knownPaths(),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "wechat_gateway_info", Help: "Always 1. The label tells the version.", ConstLabels: prometheus.Labels{"version": version},
	})
	info.Set(1)
	for _, c := range []prometheus.Collector{m.calls, m.requests, m.refused, m.added, m.upstream, m.repeated, m.dropped, info} {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("registering the metrics of calls: %w", err)
		}
	}
	return m, nil
}

// Dropped counts lines of the audit log that were lost.
func (m *Meter) Dropped(lines int) { m.dropped.Add(float64(lines)) }

// Record counts a call.
func (m *Meter) Record(c *Call) {
	var client types.NamespacedName
	if c.Client != nil {
		client = c.Client.Name
		m.clients.LoadOrStore(client, nil)
	}
	m.calls.WithLabelValues(client.Namespace, client.Name, string(c.Outcome)).Inc()
	path := c.Target.Path
	if !m.paths[path] {
		path = otherPath
	}
	m.requests.WithLabelValues(path, errcodeLabel(c.Errcode)).Inc()
	if c.Reason != "" {
		m.refused.WithLabelValues(c.Reason).Inc()
	}
	m.added.Observe(max(0, c.Duration-c.Upstream).Seconds())
	if c.Attempts > 0 {
		m.upstream.Observe(c.Upstream.Seconds())
	}
	if c.Attempts > 1 {
		m.repeated.Inc()
	}
}

// Forget removes the series of the clients that a policy does not have. A call of such a client that has not ended makes one again, until
// the next time.
func (m *Meter) Forget(p *Policy) {
	m.clients.Range(func(key, _ any) bool {
		name, _ := key.(types.NamespacedName)
		if p.ByName(name) == nil {
			m.clients.Delete(name)
			m.calls.DeletePartialMatch(prometheus.Labels{"client_namespace": name.Namespace, "client": name.Name})
		}
		return true
	})
}

// errcodeLabel returns the label for an errcode, which is empty for 0. WeChat, or what answers in its place, could invent any number.
func errcodeLabel(code int) string {
	switch {
	case code == 0:
		return ""
	case isCommonCode(code) || wechat.KnownCode(code):
		return strconv.Itoa(code)
	}
	return otherPath
}
