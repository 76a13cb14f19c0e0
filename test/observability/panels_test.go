// SPDX-License-Identifier: Apache-2.0

package observability_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/onsi/gomega"
)

// perScrape are the series of a gateway. The counters grow by these numbers in a second, which is the time between two scrapes.
var perScrape = []struct {
	series string
	growth float64
}{
	{`wechat_gateway_calls_total{client="shop/api",outcome="relayed"}`, 20},
	{`wechat_gateway_calls_total{client="shop/api",outcome="limited"}`, 5},
	{`wechat_gateway_calls_total{client="",outcome="denied"}`, 3},
	{`wechat_gateway_answers_total{path="/wxa/getwxacodeunlimit",errcode="0"}`, 18},
	{`wechat_gateway_answers_total{path="/wxa/getwxacodeunlimit",errcode="45009"}`, 1},
	{`wechat_gateway_answers_total{path="other",errcode="45009"}`, 1},
	{`wechat_gateway_upstream_duration_seconds_bucket{le="0.1"}`, 0},
	{`wechat_gateway_upstream_duration_seconds_bucket{le="0.2"}`, 20},
	{`wechat_gateway_upstream_duration_seconds_bucket{le="+Inf"}`, 20},
	{`wechat_gateway_added_duration_seconds_bucket{le="0.001"}`, 20},
	{`wechat_gateway_added_duration_seconds_bucket{le="+Inf"}`, 20},
	{`wechat_gateway_audit_lines_dropped_total`, 2},
}

// TestGatewayPanels makes a real Prometheus scrape two replicas of a gateway, and checks what each query of the dashboard's row shows.
func TestGatewayPanels(t *testing.T) {
	g := gomega.NewWithT(t)
	var targets []string
	for range 2 {
		began := time.Now()
		replica := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			// Counters follow the clock, so that a scrape that comes late changes no rate.
			for _, s := range perScrape {
				_, _ = fmt.Fprintf(w, "%s %f\n", s.series, s.growth*time.Since(began).Seconds())
			}
			_, _ = fmt.Fprintln(w, "wechat_gateway_in_flight 4")
		}))
		t.Cleanup(replica.Close)
		targets = append(targets, strings.TrimPrefix(replica.URL, "http://"))
	}
	address := startPrometheus(t, fmt.Sprintf(`
scrape_configs:
- job_name: gateway
  scrape_interval: 1s
  static_configs:
  - targets: [%q, %q]
    labels: {cluster: one}
`, targets[0], targets[1]))
	queries := map[string]string{}
	for _, p := range readDashboard(t).Panels {
		for i, target := range p.Targets {
			if strings.Contains(target.Expr, "wechat_gateway_") {
				expr := strings.NewReplacer("$cluster", ".*", "$__rate_interval", "20s").Replace(target.Expr)
				queries[fmt.Sprintf("%s %d", p.Title, i)] = expr
			}
		}
	}
	// Prometheus extrapolates, so the values are taken with a margin of a fifth.
	for _, shows := range []struct {
		query  string
		value  float64
		labels map[string]string
	}{
		{"Calls by outcome 0", 40, map[string]string{"outcome": "relayed"}},
		{"Calls by outcome 0", 10, map[string]string{"outcome": "limited"}},
		{"Calls by outcome 0", 6, map[string]string{"outcome": "denied"}},
		{"Calls not served, by client 0", 10, map[string]string{"client": "shop/api", "outcome": "limited"}},
		{"Calls not served, by client 0", 6, map[string]string{"outcome": "denied"}},
		{"Answers of WeChat by errcode 0", 4, map[string]string{"errcode": "45009"}},
		{"Time of WeChat and of the gateway, 99th percentile 0", 0.199, map[string]string{}},
		{"Time of WeChat and of the gateway, 99th percentile 1", 0.00099, map[string]string{}},
		{"Calls in flight 0", 8, map[string]string{}},
		{"Audit lines dropped 0", 80, map[string]string{}},
	} {
		expr := fmt.Sprintf("(%s) > %g < %g", queries[shows.query], shows.value*0.8, shows.value*1.2)
		g.Eventually(func() []map[string]string { return query(g, address, expr) }, time.Minute).
			Should(gomega.ConsistOf(shows.labels), "%s: %s", shows.query, expr)
	}
	if len(queries) != 7 {
		t.Errorf("the row has %d queries, and this test knows 7", len(queries))
	}
}
