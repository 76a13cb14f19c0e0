// SPDX-License-Identifier: Apache-2.0

// Package observability_test holds what people look at, alerts, dashboard, runbooks and the reference of metrics, to what
// the operator really serves.
package observability_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

const (
	root     = "../.."
	rules    = root + "/config/prometheus/rules.yaml"
	runbooks = root + "/docs/runbooks"
	cases    = "testdata/alerts"
)

type group struct {
	Name  string `json:"name"`
	Rules []rule `json:"rules"`
}

type rule struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	For         string            `json:"for,omitempty"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

// spec is what Prometheus itself reads.
type spec struct {
	Groups []group `json:"groups"`
}

func readRules(t *testing.T) spec {
	t.Helper()
	object := struct {
		APIVersion string         `json:"apiVersion"`
		Kind       string         `json:"kind"`
		Metadata   map[string]any `json:"metadata"`
		Spec       spec           `json:"spec"`
	}{}
	if err := yaml.UnmarshalStrict(read(t, rules), &object); err != nil {
		t.Fatal(err)
	}
	if object.APIVersion != "monitoring.coreos.com/v1" || object.Kind != "PrometheusRule" {
		t.Fatalf("%s is a %s of %s", rules, object.Kind, object.APIVersion)
	}
	return object.Spec
}

func alerts(t *testing.T) map[string]rule {
	t.Helper()
	out := map[string]rule{}
	for _, g := range readRules(t).Groups {
		for _, r := range g.Rules {
			if _, twice := out[r.Alert]; twice || r.Alert == "" {
				t.Fatalf("alert %q is there twice or has no name", r.Alert)
			}
			out[r.Alert] = r
		}
	}
	if len(out) == 0 {
		t.Fatal("there are no alerts")
	}
	return out
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// files are the names in a folder, without their suffix.
func files(t *testing.T, dir, suffix string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		name, found := strings.CutSuffix(e.Name(), suffix)
		if !found {
			t.Errorf("%s/%s does not belong there", dir, e.Name())
		}
		if name != "README" {
			out = append(out, name)
		}
	}
	return out
}

// promtool is built on first use; make does it ahead of the tests.
func promtool(t *testing.T, dir string, args ...string) string {
	t.Helper()
	path, err := exec.CommandContext(t.Context(), root+"/hack/tools/build.sh", "promtool").Output()
	if err != nil {
		t.Fatalf("building promtool: %v", err)
	}
	cmd := exec.CommandContext(t.Context(), strings.TrimSpace(string(path)), args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// A real promtool checks the rules and runs the tests of each alert.
func TestAlerts(t *testing.T) {
	dir := t.TempDir()
	raw, err := yaml.Marshal(readRules(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "rules.yaml"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, dir, "check", "rules", "--lint=all", "--lint-fatal", "rules.yaml")
	args := []string{"test", "rules"}
	for _, name := range files(t, cases, ".yaml") {
		if err := os.WriteFile(filepath.Join(dir, name+".yaml"), read(t, filepath.Join(cases, name+".yaml")), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, name+".yaml")
	}
	if out := promtool(t, dir, args...); strings.Count(out, "SUCCESS") != len(args)-2 {
		t.Errorf("promtool ran something else than %d files:\n%s", len(args)-2, out)
	}
}

// Each alert has a page and a test in which it fires and one in which it does not; there is no page or test without an
// alert.
func TestEachAlertIsTestedAndExplained(t *testing.T) {
	all := alerts(t)
	names := slices.Sorted(maps.Keys(all))
	if got := files(t, runbooks, ".md"); !slices.Equal(got, names) {
		t.Errorf("%s explains %q, the alerts are %q", runbooks, got, names)
	}
	if got := files(t, cases, ".yaml"); !slices.Equal(got, names) {
		t.Errorf("%s tests %q, the alerts are %q", cases, got, names)
	}
	for name, r := range all {
		fires, silent := verdicts(t, name)
		if fires == 0 || silent == 0 {
			t.Errorf("%s is tested firing %d times and silent %d times", name, fires, silent)
		}
		if url := r.Annotations["runbook_url"]; !strings.HasSuffix(url, "/docs/runbooks/"+name+".md") {
			t.Errorf("%s has the runbook %q", name, url)
		}
		if r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
			t.Errorf("%s has no summary or description", name)
		}
		if got := r.Annotations["appid"]; strings.HasPrefix(name, "WeChatAppToken") && got != appID {
			t.Errorf("%s does not say which appid it is about: %q", name, got)
		}
		if s := r.Labels["severity"]; !slices.Contains([]string{"critical", "warning", "info"}, s) {
			t.Errorf("%s has the severity %q", name, s)
		}
		page := string(read(t, filepath.Join(runbooks, name+".md")))
		for _, heading := range []string{"# " + name + "\n", "\n## What it means\n", "\n## What to do\n"} {
			if !strings.Contains("\n"+page, heading) {
				t.Errorf("the runbook of %s has no %q", name, strings.TrimSpace(heading))
			}
		}
		if !strings.Contains(string(read(t, filepath.Join(runbooks, "README.md"))), "("+name+".md)") {
			t.Errorf("the list of runbooks lacks %s", name)
		}
	}
}

// appID is the annotation that looks up the appid of the resource that an alert is about.
const appID = `{{ with printf "wechatapptoken_info{cluster=%q,namespace=%q,exported_namespace=%q,name=%q,exported_name=%q}" ` +
	`$labels.cluster $labels.namespace $labels.exported_namespace $labels.name $labels.exported_name | query }}` +
	`{{ . | first | label "appid" }}{{ end }}`

// TestInhibition checks that the rule which docs/metrics.md shows for Alertmanager names alerts that exist, and none that somebody has to
// act on while WeChat is away.
func TestInhibition(t *testing.T) {
	_, block, _ := strings.Cut(string(read(t, root+"/docs/metrics.md")), "```yaml\ninhibit_rules:\n")
	block, _, found := strings.Cut(block, "```")
	if !found {
		t.Fatal("docs/metrics.md shows no inhibit_rules")
	}
	var inhibit []struct {
		Source []string `json:"source_matchers"`
		Target []string `json:"target_matchers"`
		Equal  []string `json:"equal"`
	}
	if err := yaml.UnmarshalStrict([]byte(block), &inhibit); err != nil || len(inhibit) != 1 {
		t.Fatalf("%+v: %v", inhibit, err)
	}
	rule := inhibit[0]
	pattern, isRegexp := strings.CutPrefix(rule.Target[0], `alertname =~ "`)
	target, err := regexp.Compile("^(?:" + strings.TrimSuffix(pattern, `"`) + ")$")
	if !isRegexp || err != nil || len(rule.Target) != 1 {
		t.Fatalf("%q: %v", rule.Target, err)
	}
	if !slices.Equal(rule.Source, []string{"alertname = WeChatOutage"}) || !slices.Equal(rule.Equal, []string{"cluster"}) {
		t.Errorf("%+v", rule)
	}
	var held []string
	for name := range alerts(t) {
		if target.MatchString(name) {
			held = append(held, name)
		}
	}
	slices.Sort(held)
	want := []string{
		"WeChatAppTokenExpired", "WeChatAppTokenExpiring", "WeChatAppTokenNotReady", "WeChatAppTokenRefreshFailing",
		"WeChatAppTokenTicketExpiring", "WeChatAppTokenTicketFailing", "WeChatAppTokenTicketInvalid",
	}
	if !slices.Equal(held, want) {
		t.Errorf("an outage holds back %q, want %q", held, want)
	}
}

// verdicts counts what the file of an alert expects of it.
func verdicts(t *testing.T, name string) (fires, silent int) {
	t.Helper()
	file := struct {
		Tests []struct {
			Checks []struct {
				Alert    string `json:"alertname"`
				Expected []any  `json:"exp_alerts"`
			} `json:"alert_rule_test"`
		} `json:"tests"`
	}{}
	if err := yaml.Unmarshal(read(t, filepath.Join(cases, name+".yaml")), &file); err != nil {
		t.Fatal(err)
	}
	for _, test := range file.Tests {
		for _, check := range test.Checks {
			switch {
			case check.Alert != name:
				t.Errorf("%s.yaml tests %s", name, check.Alert)
			case len(check.Expected) > 0:
				fires++
			default:
				silent++
			}
		}
	}
	return fires, silent
}

var (
	regexpInRule = regexp.MustCompile(`reason=~"([A-Za-z|]+)"`)
	inTemplate   = regexp.MustCompile(`eq \$labels\.reason "([A-Za-z]+)"`)
)

// Every reason that the operator knows belongs to one of three alerts, and who has to act is told how.
func TestEachReasonHasAnAlert(t *testing.T) {
	all := alerts(t)
	reasonsOf := func(alert string) []string {
		found := regexpInRule.FindStringSubmatch(all[alert].Expr)
		if found == nil {
			t.Fatalf("%s names no reasons", alert)
		}
		return strings.Split(found[1], "|")
	}
	action := reasonsOf("WeChatAppTokenActionNeeded")
	got := slices.Sorted(slices.Values(slices.Concat(action, reasonsOf("WeChatAppTokenRefreshFailing"), reasonsOf("WeChatAppTokenDeliveryDegraded"))))
	if want := troubleReasons(t); !slices.Equal(got, want) {
		t.Errorf("the alerts know the reasons\n%q, the API has\n%q", got, want)
	}
	var remedies []string
	for _, m := range inTemplate.FindAllStringSubmatch(all["WeChatAppTokenActionNeeded"].Annotations["remedy"], -1) {
		remedies = append(remedies, m[1])
	}
	if !slices.Equal(remedies, action) {
		t.Errorf("there are remedies for\n%q, the alert is about\n%q", remedies, action)
	}
	tests := string(read(t, cases+"/WeChatAppTokenActionNeeded.yaml"))
	help := string(read(t, root+"/docs/troubleshooting.md"))
	for _, reason := range action {
		if !strings.Contains(tests, "- name: "+reason+"\n") {
			t.Errorf("the remedy of %s is not tested", reason)
		}
		if !strings.Contains(help, "\n### "+reason+"\n") {
			t.Errorf("docs/troubleshooting.md does not explain %s", reason)
		}
	}
}

// withoutReasonAlert are the reasons that need no alert by their name. Those of the ordinary life of a token and of a ticket have alerts by
// their series. Those of a WeChatAppClient are in no metric, so no alert can know them: what ends the calls of a client that worked has alerts
// by the gateway's metrics, and a client that cannot call yet has somebody who waits for its Ready.
var withoutReasonAlert = []string{
	"TokenValid", "TokenExpired", "TokenNotIssued", "TicketExpired", "TicketNotIssued",
	"ClientReady", "TokenNotFound", "KeySecretConflict", "KeySecretWriteFailed", "CredentialsNotLabelled", "GatewayNotInstalled", "Suspended",
}

// troubleReasons are the constants of the API whose name begins with Reason, but for those that need no alert.
func troubleReasons(t *testing.T) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), root+"/api/v1alpha1/conditions.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	ast.Inspect(file, func(n ast.Node) bool {
		value, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(value.Names[0].Name, "Reason") {
			return true
		}
		reason, err := strconv.Unquote(value.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(withoutReasonAlert, reason) {
			out = append(out, reason)
		}
		return true
	})
	slices.Sort(out)
	return out
}
