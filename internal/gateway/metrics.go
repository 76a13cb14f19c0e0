// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/internal/kube"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat"
)

// Metrics counts calls. No metric has all labels: a client that calls many paths, with many errcodes, must not make many series of its own.
type Metrics struct {
	source Source
	now    func() time.Time

	calls    *prometheus.CounterVec
	answers  *prometheus.CounterVec
	upstream prometheus.Histogram
	added    prometheus.Histogram

	mu sync.Mutex // guards the fields below
	// clients has the counters of the clients that exist.
	clients map[types.NamespacedName]map[Outcome]prometheus.Counter
	swept   time.Time
}

// NewMetrics returns a Metrics whose metrics are registered. audit and hints may be nil.
func NewMetrics(registry prometheus.Registerer, relay *Relay, audit *Audit, hints *Hints) (*Metrics, error) {
	m := &Metrics{
		source: relay.source, now: relay.now, swept: relay.now(),
		clients: map[types.NamespacedName]map[Outcome]prometheus.Counter{},
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wechat_gateway_calls_total", Help: "Calls of the clients, by what became of them; client is empty for unknown callers.",
		}, []string{"client", "outcome"}),
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wechat_gateway_answers_total", Help: "Answers of WeChat, by path and errcode; other stands for those that are not common.",
		}, []string{"path", "errcode"}),
		upstream: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "wechat_gateway_upstream_duration_seconds", Help: "Time that a call waited for WeChat.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
		added: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "wechat_gateway_added_duration_seconds",
			Help:    "Time that the gateway added to a call: without that of WeChat, of a slow caller, and of waiting for another token.",
			Buckets: []float64{.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .05, .25, 1},
		}),
	}
	collectors := []prometheus.Collector{
		m.calls, m.answers, m.upstream, m.added,
		gauge("wechat_gateway_in_flight", "Calls that are being passed on.", func() float64 { return float64(relay.InFlight()) }),
		gauge("wechat_gateway_buffered_bytes", "Size of the bodies of requests that are held.",
			func() float64 { return float64(relay.BufferedBytes()) }),
	}
	if audit != nil {
		collectors = append(collectors, counter("wechat_gateway_audit_lines_dropped_total", "Lines of the audit log that were lost.", "",
			func() float64 { return float64(audit.Dropped()) }))
	}
	if hints != nil {
		const name, help = "wechat_gateway_hints_total", "Hints to the operator that WeChat refused a token."
		collectors = append(collectors,
			counter(name, help, "sent", func() float64 { return float64(hints.sent.Load()) }),
			counter(name, help, "failed", func() float64 { return float64(hints.failed.Load()) }),
			counter(name, help, "dropped", func() float64 { return float64(hints.dropped.Load()) }))
	}
	errs := make([]error, 0, len(collectors))
	for _, c := range collectors {
		errs = append(errs, registry.Register(c))
	}
	return m, errors.Join(errs...)
}

// NewNamespaces returns a function that records whether the gateway can read a namespace of --namespaces.
func NewNamespaces(registry prometheus.Registerer) (served func(namespace string, yes bool), err error) {
	return kube.ServedGauge(registry, "wechat_gateway_namespace_served", "1 if the namespace of --namespaces can be read, 0 if not.")
}

func gauge(name, help string, value func() float64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
}

// counter returns a counter with a result, unless that is empty.
func counter(name, help, result string, value func() float64) prometheus.Collector {
	o := prometheus.CounterOpts{Name: name, Help: help}
	if result != "" {
		o.ConstLabels = prometheus.Labels{"result": result}
	}
	return prometheus.NewCounterFunc(o, value)
}

// Record counts a call that has ended.
func (m *Metrics) Record(c *Call) {
	m.counterOf(c).Inc()
	if c.Attempts == 0 {
		return
	}
	if c.Outcome == OutcomeRelayed {
		m.answers.WithLabelValues(pathName(c.Target.Path), errcodeName(c.Errcode)).Inc()
	}
	m.upstream.Observe(c.Upstream.Seconds())
	m.added.Observe(max(0, c.Duration-c.Upstream-c.Caller-c.Store).Seconds())
}

// counterOf returns the counter of a call's client and outcome. Each minute it removes those of clients that are gone.
func (m *Metrics) counterOf(c *Call) prometheus.Counter {
	var name types.NamespacedName
	if c.Client != nil {
		name = c.Client.Name
	}
	now := m.now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if now.Sub(m.swept) >= sweepInterval {
		m.swept = now
		m.sweep()
	}
	byOutcome := m.clients[name]
	if byOutcome == nil {
		byOutcome = make(map[Outcome]prometheus.Counter, 2)
		m.clients[name] = byOutcome
	}
	known := byOutcome[c.Outcome]
	if known == nil {
		known = m.calls.WithLabelValues(clientLabel(name), string(c.Outcome))
		byOutcome[c.Outcome] = known
	}
	return known
}

// sweep removes the series of clients that the policy no longer has. The caller holds the mutex.
func (m *Metrics) sweep() {
	policy, _ := m.source.Policy()
	for name := range m.clients {
		if name.Name != "" && policy.ByName(name) == nil {
			m.calls.DeletePartialMatch(prometheus.Labels{"client": clientLabel(name)})
			delete(m.clients, name)
		}
	}
}

// clientLabel returns "namespace/name", or "" for an unknown caller.
func clientLabel(name types.NamespacedName) string {
	if name.Name == "" {
		return ""
	}
	return name.String()
}

// errcodeName returns the label of an errcode.
func errcodeName(code int) string {
	if code == 0 || wechat.KnownCode(code) || isCommonCode(code) {
		return strconv.Itoa(code)
	}
	return otherName
}
