// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
)

// newMetrics returns metrics by a clock that the test moves.
func newMetrics(t *testing.T, s Source) (*Metrics, *prometheus.Registry, *time.Time) {
	t.Helper()
	now := at
	relay, err := NewRelay(RelayOptions{Source: s, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewPedanticRegistry()
	audit := NewAudit(&sink{}, time.Now)
	t.Cleanup(audit.Close)
	m, err := NewMetrics(registry, relay, audit, NewHints(nil, time.Now))
	if err != nil {
		t.Fatal(err)
	}
	return m, registry, &now
}

func TestMetrics(t *testing.T) {
	m, registry, _ := newMetrics(t, newStore(holding(staleToken)))
	call := func(path string, errcode int, outcome Outcome, attempts int) *Call {
		return &Call{
			Client: holding(staleToken), Target: parsed(t, path), Outcome: outcome, Errcode: errcode, Attempts: attempts,
			Spent: Spent{Duration: 5 * time.Second, Upstream: time.Second, Caller: 2 * time.Second, Store: time.Second},
		}
	}
	m.Record(call("/wxa/msg_sec_check", 0, OutcomeRelayed, 1))
	m.Record(call("/wxa/msg_sec_check", 87014, OutcomeRelayed, 1))
	m.Record(call("/wxa/"+staleToken[3:], 123456, OutcomeRelayed, 1))
	m.Record(call("/wxa/msg_sec_check", -1, OutcomeUnavailable, 1))
	m.Record(&Call{Outcome: OutcomeDenied, Errcode: 40001})
	want := map[string]float64{
		"wechat_gateway_answers_total{errcode=0,path=/wxa/msg_sec_check}":      1,
		"wechat_gateway_answers_total{errcode=87014,path=/wxa/msg_sec_check}":  1,
		"wechat_gateway_answers_total{errcode=other,path=other}":               1,
		"wechat_gateway_calls_total{client=,outcome=denied}":                   1,
		"wechat_gateway_calls_total{client=shop/shop-api,outcome=relayed}":     3,
		"wechat_gateway_calls_total{client=shop/shop-api,outcome=unavailable}": 1,
		"wechat_gateway_upstream_duration_seconds{}":                           4, // seconds
		"wechat_gateway_added_duration_seconds{}":                              4,
		"wechat_gateway_in_flight{}":                                           0,
		"wechat_gateway_buffered_bytes{}":                                      0,
		"wechat_gateway_audit_lines_dropped_total{}":                           0,
		"wechat_gateway_hints_total{result=sent}":                              0,
		"wechat_gateway_hints_total{result=failed}":                            0,
		"wechat_gateway_hints_total{result=dropped}":                           0,
	}
	if got := series(t, registry); !maps.Equal(got, want) {
		t.Errorf("series %v, want %v", got, want)
	}
}

// series returns the values of all counters and gauges, and the sums of all histograms, by "name{label=value,…}".
func series(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			out[f.GetName()+"{"+strings.Join(labels, ",")+"}"] = m.GetGauge().GetValue() + m.GetCounter().GetValue() + m.GetHistogram().GetSampleSum()
		}
	}
	return out
}

// TestMetricsForgetClients: there are never more series than clients, with a minute's delay.
func TestMetricsForgetClients(t *testing.T) {
	s := newStore()
	m, registry, now := newMetrics(t, s)
	for i := range 1000 {
		c := holding(staleToken)
		c.Name = types.NamespacedName{Namespace: "shop", Name: fmt.Sprint(i)}
		s.replace(c)
		m.Record(&Call{Client: c, Outcome: OutcomeRelayed})
		*now = now.Add(time.Minute)
	}
	m.Record(&Call{Outcome: OutcomeDenied})
	got := 0
	for name := range series(t, registry) {
		if strings.HasPrefix(name, "wechat_gateway_calls_total") {
			got++
		}
	}
	if got > 2 {
		t.Errorf("%d series", got)
	}
}

// TestLimits: the rate of a client, what it may have in flight, and what all may.
func TestLimits(t *testing.T) {
	now := at
	s := newStore(holding(staleToken))
	l := newLimits(3, 2, s, func() time.Time { return now })
	client := holding(staleToken)
	client.Rate.RequestsPerSecond, client.Rate.Burst = 2, 4
	other := holding(staleToken)
	other.UID = "other"
	want := func(c *Client, reason string) func() {
		t.Helper()
		admitted, refused := l.admit(c)
		if got := refused; reason == "" != (got == nil) || got != nil && (got.reason != reason || got.code != 45011) {
			t.Errorf("refused %v, want %q", got, reason)
		}
		return func() { l.leave(admitted) }
	}
	first, second := want(client, ""), want(client, "")
	want(client, "client_in_flight")
	third := want(other, "")
	want(other, "in_flight")
	want(nil, "in_flight")
	first()
	want(nil, "")()
	second()
	third()
	for range 2 {
		want(client, "")()
	}
	want(client, "rate")
	now = now.Add(500 * time.Millisecond)
	want(client, "")()
	want(client, "rate")
	faster := *client
	faster.Rate.RequestsPerSecond = 100
	want(&faster, "rate") // the new rate counts from the time when it is seen
	now = now.Add(10 * time.Millisecond)
	want(&faster, "")
	now = now.Add(time.Hour)
	s.replace()
	want(other, "")()
	if len(l.byClient) != 2 { // one is in flight, and the other has just called
		t.Errorf("%d clients are kept", len(l.byClient))
	}
	if l.inFlight() != 1 {
		t.Errorf("%d calls in flight, want 1", l.inFlight())
	}
}
