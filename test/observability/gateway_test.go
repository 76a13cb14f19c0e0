// SPDX-License-Identifier: Apache-2.0

package observability_test

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wechat-token-operator/wechat-token-operator/internal/gateway"
	"github.com/wechat-token-operator/wechat-token-operator/internal/metrics"
)

// collected is a registry that only remembers what is registered.
type collected []prometheus.Collector

func (c *collected) Register(more prometheus.Collector) error { *c = append(*c, more); return nil }
func (c *collected) MustRegister(more ...prometheus.Collector) {
	*c = append(*c, more...)
}
func (c *collected) Unregister(prometheus.Collector) bool { return false }

// noPolicy is a source of a policy that allows nothing.
type noPolicy struct{}

func (noPolicy) Policy() (*gateway.Policy, <-chan struct{}) { return &gateway.Policy{}, nil }

var described = regexp.MustCompile(`^Desc\{fqName: "(.*)", help: "(.*?)",(?: unit: ".*",)? constLabels: \{(.*)\}, variableLabels: \{(.*)\}\}$`)

// gatewayFamilies are the metrics of the gateway.
func gatewayFamilies(t *testing.T) []metrics.Family {
	t.Helper()
	relay, err := gateway.NewRelay(gateway.RelayOptions{Endpoints: []string{"https://api.weixin.qq.com"}, Source: noPolicy{}})
	if err != nil {
		t.Fatal(err)
	}
	var all collected
	_, metricsErr := gateway.NewMetrics(&all, relay, gateway.NewAudit(&strings.Builder{}, time.Now), gateway.NewHints(nil, time.Now))
	_, namespacesErr := gateway.NewNamespaces(&all)
	if err := errors.Join(metricsErr, namespacesErr); err != nil {
		t.Fatal(err)
	}
	var out []metrics.Family
	for _, c := range all {
		descriptions := make(chan *prometheus.Desc, 16)
		c.Describe(descriptions)
		close(descriptions)
		for d := range descriptions {
			m := described.FindStringSubmatch(d.String())
			if m == nil {
				t.Fatalf("%s is not understood", d)
			}
			f := metrics.Family{Name: m[1], Help: m[2], Type: typeOf(t, c)}
			for label := range strings.SplitSeq(m[3]+","+m[4], ",") {
				if name, _, _ := strings.Cut(label, "="); name != "" {
					f.Labels = append(f.Labels, name)
				}
			}
			if !slices.ContainsFunc(out, func(o metrics.Family) bool { return o.Name == f.Name }) {
				out = append(out, f)
			}
		}
	}
	return out
}

func typeOf(t *testing.T, c prometheus.Collector) metrics.Type {
	t.Helper()
	switch c.(type) {
	case *prometheus.CounterVec:
		return metrics.Counter
	case *prometheus.GaugeVec:
		return metrics.Gauge
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil || len(families) != 1 {
		t.Fatalf("%T: %d families, %v", c, len(families), err)
	}
	switch kind := metrics.Type(strings.ToLower(families[0].GetType().String())); kind {
	case metrics.Counter, metrics.Gauge, metrics.Histogram:
		return kind
	}
	t.Fatalf("a %T has no type", c)
	return ""
}
