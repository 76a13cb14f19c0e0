// SPDX-License-Identifier: Apache-2.0

package observability_test

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/wechat-token-operator/wechat-token-operator/internal/metrics"
)

// borrowed are the metrics of controller-runtime, client-go and client_golang that rules and dashboard use. That they
// are served is tested by the demo, which runs each query.
var borrowed = map[string]bool{
	"leader_election_master_status": true, "workqueue_depth": true, "controller_runtime_reconcile_total": true,
	"process_cpu_seconds_total": true, "process_resident_memory_bytes": true,
}

var (
	word   = regexp.MustCompile(`[a-z_]+_[a-z_]+`)
	quoted = regexp.MustCompile(`"[^"]*"|\b(by|on|without|ignoring)\s*\([^)]*\)`)
)

// notMetrics are the words of PromQL that look like names of metrics.
var notMetrics = map[string]bool{"histogram_quantile": true, "max_over_time": true, "group_left": true, "__rate_interval": true}

// Every metric that a rule or a panel names exists, with the labels that are asked for.
func TestMetricsOfQueriesExist(t *testing.T) {
	served := map[string]bool{}
	for _, f := range slices.Concat(metrics.Families(), gatewayFamilies(t)) {
		served[f.Name] = true
		if f.Type == metrics.Histogram {
			served[f.Name+"_bucket"], served[f.Name+"_sum"], served[f.Name+"_count"] = true, true, true
		}
	}
	used := map[string]bool{}
	for where, expr := range queries(t) {
		names := word.FindAllString(quoted.ReplaceAllString(expr, ""), -1)
		if len(names) == 0 {
			t.Errorf("%s names no metric: %s", where, expr)
		}
		for _, name := range names {
			if !served[name] && !borrowed[name] && !notMetrics[name] {
				t.Errorf("%s: nobody serves %s", where, name)
			}
			used[name] = true
		}
	}
	for name := range borrowed {
		if !used[name] {
			t.Errorf("%s is used nowhere", name)
		}
	}
}

// queries are all expressions of alerts and panels.
func queries(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for name, r := range alerts(t) {
		out["alert "+name] = r.Expr
	}
	for _, p := range readDashboard(t).Panels {
		for i, target := range p.Targets {
			out[fmt.Sprintf("panel %q, query %d", p.Title, i+1)] = target.Expr
		}
	}
	return out
}

// docs/metrics.md has each metric with its type, labels and meaning.
func TestReference(t *testing.T) {
	page := string(read(t, root+"/docs/metrics.md"))
	rows := map[string]string{}
	for line := range strings.Lines(page) {
		cells := strings.Split(line, "|")
		if name := strings.Trim(strings.TrimSpace(cells[min(1, len(cells)-1)]), "`"); strings.HasPrefix(name, "wechat") {
			rows[name] = strings.TrimSpace(line)
		}
	}
	for _, f := range slices.Concat(metrics.Families(), gatewayFamilies(t)) {
		labels := make([]string, 0, len(f.Labels))
		for _, l := range f.Labels {
			labels = append(labels, "`"+l+"`")
		}
		want := strings.Join(strings.Fields(fmt.Sprintf("| `%s` | %s | %s | %s |", f.Name, f.Type, strings.Join(labels, ", "), f.Help)), " ")
		if rows[f.Name] != want {
			t.Errorf("docs/metrics.md has\n%s\nthe code says\n%s", rows[f.Name], want)
		}
		delete(rows, f.Name)
	}
	if len(rows) > 0 {
		t.Errorf("docs/metrics.md has metrics that nobody serves: %q", slices.Sorted(maps.Keys(rows)))
	}
}
