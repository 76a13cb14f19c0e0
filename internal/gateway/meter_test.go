// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"k8s.io/apimachinery/pkg/types"
)

func TestMeter(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	m, err := NewMeter(registry, "v1")
	if err != nil {
		t.Fatal(err)
	}
	shop := &Client{Name: types.NamespacedName{Namespace: "shop", Name: "api"}, Account: &Account{}}
	gone := &Client{Name: types.NamespacedName{Namespace: "shop", Name: "gone"}, Account: &Account{}}
	relayed := Call{
		Target: target(t, "/cgi-bin/user/info?openid=1"), Client: shop, Outcome: OutcomeRelayed, Errcode: 40003, Attempts: 2,
		Duration: time.Second, Upstream: 900 * time.Millisecond,
	}
	m.Record(&relayed)
	relayed.Client, relayed.Errcode, relayed.Attempts = gone, 987654, 1
	m.Record(&relayed)
	m.Record(&Call{Target: target(t, "/nobody/knows"), Outcome: OutcomeDenied, Reason: "path_not_granted", Errcode: 48001})
	m.Dropped(3)
	m.Forget(NewPolicy([]*Client{shop}))
	want := []string{
		`wechat_gateway_audit_lines_dropped_total 3`,
		`wechat_gateway_calls_total{client="",client_namespace="",outcome="denied"} 1`,
		`wechat_gateway_calls_total{client="api",client_namespace="shop",outcome="relayed"} 1`,
		`wechat_gateway_info{version="v1"} 1`,
		`wechat_gateway_refusals_total{reason="path_not_granted"} 1`,
		`wechat_gateway_repeated_calls_total 1`,
		`wechat_gateway_requests_total{errcode="40003",path="/cgi-bin/user/info"} 1`,
		`wechat_gateway_requests_total{errcode="48001",path="other"} 1`,
		`wechat_gateway_requests_total{errcode="other",path="/cgi-bin/user/info"} 1`,
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range families {
		if problems, err := promlint.NewWithMetricFamilies([]*dto.MetricFamily{f}).Lint(); err != nil || len(problems) > 0 {
			t.Errorf("%v %v", problems, err)
		}
		for _, metric := range f.GetMetric() {
			if h := metric.GetHistogram(); f.GetName() == "wechat_gateway_added_duration_seconds" && (h.GetSampleSum() < 0.19 || h.GetSampleSum() > 0.21) {
				t.Errorf("two calls took %g s in the gateway", h.GetSampleSum())
			}
			if metric.Histogram == nil {
				got = append(got, series(f.GetName(), metric))
			}
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// series returns a counter or gauge as it is scraped.
func series(name string, metric *dto.Metric) string {
	var labels []string
	for _, l := range metric.GetLabel() {
		labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
	}
	if len(labels) > 0 {
		name += "{" + strings.Join(labels, ",") + "}"
	}
	return fmt.Sprintf("%s %g", name, metric.GetCounter().GetValue()+metric.GetGauge().GetValue())
}
