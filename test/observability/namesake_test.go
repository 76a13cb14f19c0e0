// SPDX-License-Identifier: Apache-2.0

package observability_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// enforced is the namespace that a Prometheus with enforcedNamespaceLabel writes into the label namespace of all series.
const enforced = "operators"

// labelling is a way in which Prometheus labels the series of the WeChatAppToken shop/a and of a healthy namesake.
type labelling struct {
	// ill and healthy stand in the place of the labels namespace and name. They differ in one label.
	ill, healthy map[string]string
}

var labellings = map[string]labelling{
	"as served": {
		map[string]string{"namespace": "shop", "name": "a"},
		map[string]string{"namespace": "blog", "name": "a"},
	},
	"the namespace is kept twice": { // by the ServiceMonitor
		map[string]string{"namespace": "shop", "exported_namespace": "shop", "name": "a"},
		map[string]string{"namespace": "blog", "exported_namespace": "blog", "name": "a"},
	},
	"an enforced namespace, or no honorLabels": {
		map[string]string{"namespace": enforced, "exported_namespace": "shop", "name": "a"},
		map[string]string{"namespace": enforced, "exported_namespace": "blog", "name": "a"},
	},
	"targets have names too": {
		map[string]string{"namespace": "shop", "name": "operator", "exported_name": "a"},
		map[string]string{"namespace": "shop", "name": "operator", "exported_name": "b"},
	},
	"two clusters": {
		map[string]string{"cluster": "one", "namespace": "shop", "name": "a"},
		map[string]string{"cluster": "two", "namespace": "shop", "name": "a"},
	},
}

// healthyValues are what a resource without any problem shows.
var healthyValues = map[string]string{
	"wechatapptoken_info":                           "1x500",
	"wechatapptoken_last_check_timestamp_seconds":   "1790x500",
	"wechatapptoken_ready":                          "1x500",
	"wechatapptoken_suspended":                      "0x500",
	"wechatapptoken_expiration_timestamp_seconds":   "1000000x500",
	"wechatapptoken_next_refresh_timestamp_seconds": "999700x500",
	"wechatapptoken_forced_refreshes_left":          "20x500",
	"wechatapptoken_foreign_fetches_total":          "0x500",

	"wechatapptoken_ticket_valid":                        "1x500",
	"wechatapptoken_ticket_expiration_timestamp_seconds": "1000900x500",
}

// selector returns labels as they are written behind the name of a series.
func selector(labels map[string]string) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		out = append(out, fmt.Sprintf("%s=%q", name, labels[name]))
	}
	return strings.Join(out, ",")
}

type series struct {
	Series string `json:"series"`
	Values string `json:"values"`
}

func healthySeries(l labelling) []series {
	var out []series
	for _, metric := range slices.Sorted(maps.Keys(healthyValues)) {
		labels := maps.Clone(l.healthy)
		switch {
		case strings.Contains(metric, "_ticket_"):
			labels["ticket"] = "jsapi"
		case strings.HasSuffix(metric, "_info"):
			labels["appid"], labels["mode"] = "y", "Stable"
		}
		out = append(out, series{metric + `{pod="x",` + selector(labels) + "}", healthyValues[metric]})
	}
	return out
}

// TestNamesakeHidesNothing runs the tests of each alert again, with the labels that resources have under several settings of Prometheus and
// with a healthy resource of the same name. The alerts must be the same ones, and name the same resource.
func TestNamesakeHidesNothing(t *testing.T) {
	dir, args := t.TempDir(), []string{"test", "rules"}
	for alert, r := range alerts(t) {
		if !strings.HasPrefix(alert, "WeChatAppToken") {
			continue // it is not about a resource
		}
		// promtool evaluates all rules of a file at each step.
		raw, err := yaml.Marshal(spec{Groups: []group{{Name: alert, Rules: []rule{r}}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, alert+".rules"), raw, 0o600); err != nil {
			t.Fatal(err)
		}
		for name, l := range labellings {
			file := strings.ReplaceAll(alert+" "+name+".yaml", " ", "-")
			if err := os.WriteFile(filepath.Join(dir, file), relabelled(t, alert, name, l), 0o600); err != nil {
				t.Fatal(err)
			}
			args = append(args, file)
		}
	}
	if len(args) < 40 {
		t.Fatalf("there are only %d files of tests", len(args)-2)
	}
	promtool(t, dir, args...)
}

// relabelled returns the tests of an alert for shop/a with other labels, and with a healthy namesake.
func relabelled(t *testing.T, alert, name string, l labelling) []byte {
	t.Helper()
	file := map[string]any{}
	if err := yaml.Unmarshal(read(t, filepath.Join(cases, alert+".yaml")), &file); err != nil {
		t.Fatal(err)
	}
	file["rule_files"] = []string{alert + ".rules"}
	tests := file["tests"].([]any)
	changed := 0
	for _, test := range tests {
		test := test.(map[string]any)
		test["name"] = fmt.Sprintf("%s: %v", name, test["name"])
		inputs := test["input_series"].([]any)
		for _, input := range inputs {
			input := input.(map[string]any)
			before := input["series"].(string)
			after := strings.Replace(before, `namespace="shop",name="a"`, selector(l.ill), 1)
			if before == after && strings.Contains(before, `name="a"`) {
				t.Errorf("%s: a series does not have the labels that this test replaces: %s", alert, before)
			}
			input["series"] = after
			changed++
		}
		for _, s := range healthySeries(l) {
			inputs = append(inputs, s)
		}
		test["input_series"] = inputs
		for _, check := range test["alert_rule_test"].([]any) {
			expected, _ := check.(map[string]any)["exp_alerts"].([]any)
			for _, e := range expected {
				labels := e.(map[string]any)["exp_labels"].(map[string]any)
				if labels["namespace"] == "shop" && labels["name"] == "a" {
					maps.DeleteFunc(labels, func(key string, _ any) bool { return key == "namespace" || key == "name" })
					for key, value := range l.ill {
						labels[key] = value
					}
				}
			}
		}
	}
	if changed == 0 {
		t.Errorf("%s has no series", alert)
	}
	out, err := yaml.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// shown is what a query of the dashboard gives for a resource that is ill in every way beside a healthy one. total is the only value of a
// query that adds up or picks; ill and healthy are the values of a query that shows both.
type shown struct {
	panel        string
	query        int
	total        string
	ill, healthy string
	// ticket and healthyTicket are the values of further samples, which have the label ticket.
	ticket, healthyTicket string
	// labels are those that the ill resource's sample has besides the resource's own.
	labels map[string]string
	// appid reports that each sample has the label appid.
	appid bool
}

// illAt is when the queries are made; the ill resource's token died a minute before.
const illAt = "30m"

var illValues = map[string]string{
	"wechatapptoken_ready{%s}":                        "0x500",
	"wechatapptoken_last_check_timestamp_seconds{%s}": "1500x500",
	`wechatapptoken_condition{%s,type="DeliveryDegraded",status="True",reason="PodsForbidden"}`: "1x500",
	"wechatapptoken_suspended{%s}":                                                                         "0x500",
	"wechatapptoken_expiration_timestamp_seconds{%s}":                                                      "1740x500",
	"wechatapptoken_next_refresh_timestamp_seconds{%s}":                                                    "1440x500",
	"wechatapptoken_forced_refreshes_left{%s}":                                                             "2x500",
	"wechatapptoken_foreign_fetches_total{%s}":                                                             "0x60 4x500",
	`wechatapptoken_condition{%s,type="RefreshFailing",status="True",reason="Unreachable"}`:                "1x500",
	`wechatapptoken_condition{%s,type="RefreshFailing",status="True",reason="Unreachable",ticket="jsapi"}`: "1x500",
	`wechatapptoken_ticket_valid{%s,ticket="jsapi"}`:                                                       "0x500",
	`wechatapptoken_ticket_expiration_timestamp_seconds{%s,ticket="jsapi"}`:                                "1770x500",
	`wechatapptoken_last_error_timestamp_seconds{%s,reason="Unreachable",errcode=""}`:                      "1700x500",
	`wechatapptoken_info{%s,mode="Stable",appid="x",secret="x"}`:                                           "1x500",
}

var shownByDashboard = []shown{
	{panel: "Dead tokens", total: "1"},
	{panel: "Invalid tickets", total: "1"},
	{panel: "Overdue rotations", total: "1"},
	{panel: "Not Ready", total: "1"},
	{panel: "Refresh failing", total: "1"},
	{panel: "Next token to die", total: "-60"},
	{panel: "What is wrong", ill: "1", ticket: "1", labels: map[string]string{"type": "RefreshFailing", "reason": "Unreachable"}, appid: true},
	{panel: "Last errors", ill: "1700000", labels: map[string]string{"reason": "Unreachable"}, appid: true},
	{panel: "First to die", ill: "-60", healthy: "998200", ticket: "-30", healthyTicket: "999100", appid: true},
	{panel: "Oldest checks", ill: "300", healthy: "10", appid: true},
	{panel: "Delivery to pods degraded", ill: "1", labels: map[string]string{"reason": "PodsForbidden"}, appid: true},
	{panel: "Suspended resources"},
	{panel: "Life left", total: "-60", ticket: "-30"},
	{panel: "Life left", query: 1, total: "499070"},
	{panel: "Resources", total: "2", labels: map[string]string{"mode": "Stable"}},
	{panel: "Suspended", total: "0"},
	{panel: "Foreign fetches within an hour", ill: "4", healthy: "0"},
	{panel: "Forced refreshes left", ill: "2", healthy: "20"},
}

// TestDashboardShowsNamesakes makes the queries of the dashboard about resources in promtool, with the labels that resources have under
// several settings of Prometheus.
func TestDashboardShowsNamesakes(t *testing.T) {
	queries := map[string]string{}
	for _, p := range readDashboard(t).Panels {
		for i, target := range p.Targets {
			if perResource.MatchString(target.Expr) {
				expr := strings.NewReplacer("$cluster", ".*", "$namespace", ".*", "$__rate_interval", "5m").Replace(target.Expr)
				queries[fmt.Sprintf("%s %d", p.Title, i)] = expr
			}
		}
	}
	dir, args := t.TempDir(), []string{"test", "rules"}
	for name, l := range labellings {
		file := dashboardTests(t, name, l, queries)
		raw, err := json.Marshal(file)
		if err != nil {
			t.Fatal(err)
		}
		path := strings.ReplaceAll(name, " ", "-") + ".yaml"
		if err := os.WriteFile(filepath.Join(dir, path), raw, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, path)
	}
	if len(queries) != len(shownByDashboard) {
		t.Errorf("the dashboard has %d queries about resources, and this test knows %d", len(queries), len(shownByDashboard))
	}
	promtool(t, dir, args...)
}

func dashboardTests(t *testing.T, name string, l labelling, queries map[string]string) map[string]any {
	t.Helper()
	inputs := healthySeries(l)
	for _, pattern := range slices.Sorted(maps.Keys(illValues)) {
		inputs = append(inputs, series{fmt.Sprintf(pattern, `pod="x",`+selector(l.ill)), illValues[pattern]})
	}
	type sample struct {
		Labels string      `json:"labels"`
		Value  json.Number `json:"value"`
	}
	var checks []map[string]any
	for _, s := range shownByDashboard {
		expr, found := queries[fmt.Sprintf("%s %d", s.panel, s.query)]
		if !found {
			t.Errorf("the dashboard has no query %d about resources in the panel %q", s.query, s.panel)
			continue
		}
		labels := map[string]string{}
		if s.ill != "" {
			maps.Copy(labels, l.ill)
		}
		maps.Copy(labels, s.labels)
		healthy := maps.Clone(l.healthy)
		if s.appid {
			labels["appid"], healthy["appid"] = "x", "y"
		}
		samples := []sample{}
		if s.total+s.ill != "" {
			samples = append(samples, sample{"{" + selector(labels) + "}", json.Number(s.total + s.ill)})
		}
		if s.healthy != "" {
			samples = append(samples, sample{"{" + selector(healthy) + "}", json.Number(s.healthy)})
		}
		for value, of := range map[string]map[string]string{s.ticket: labels, s.healthyTicket: healthy} {
			if value != "" {
				named := maps.Clone(of)
				named["ticket"] = "jsapi"
				samples = append(samples, sample{"{" + selector(named) + "}", json.Number(value)})
			}
		}
		checks = append(checks, map[string]any{"expr": expr, "eval_time": illAt, "exp_samples": samples})
	}
	return map[string]any{"evaluation_interval": "15s", "tests": []any{
		map[string]any{"name": name, "interval": "15s", "input_series": inputs, "promql_expr_test": checks},
	}}
}
