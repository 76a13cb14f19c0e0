// SPDX-License-Identifier: Apache-2.0

package observability_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/onsi/gomega"
	"sigs.k8s.io/yaml"

	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
)

// TestEnforcedNamespace runs a real Prometheus with the scrape configuration that the Prometheus operator makes of the ServiceMonitor where
// enforcedNamespaceLabel is set: it overwrites the label namespace of each series after the relabelings of the ServiceMonitor. A dead token
// and a healthy namesake in another namespace would then be one series, of which Prometheus keeps either sample, and so would the namespaces
// of --namespaces.
func TestEnforcedNamespace(t *testing.T) {
	for name, setting := range map[string]string{"honorLabels": "true", "overrideHonorLabels": "false"} {
		t.Run(name, func(t *testing.T) {
			g := gomega.NewWithT(t)
			operator := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				const sample = "wechatapptoken_expiration_timestamp_seconds{namespace=%q,name=\"a\"} %d\n"
				_, _ = fmt.Fprintf(w, sample+sample, "blog", time.Now().Add(time.Hour).Unix(), "shop", time.Now().Add(-time.Minute).Unix())
				const served = "wechatapptoken_namespace_served{namespace=%q} %d\n"
				_, _ = fmt.Fprintf(w, served+served+served, "blog", 1, "gone", 0, "shop", 1)
				_, _ = fmt.Fprint(w, "wechatapptoken_operator_info{version=\"v1\"} 1\n")
			}))
			t.Cleanup(operator.Close)
			address := startPrometheus(t, fmt.Sprintf(`
scrape_configs:
- job_name: operator
  scrape_interval: 1s
  honor_labels: %s
  static_configs:
  - targets: [%q]
    labels: {namespace: %s}
  metric_relabel_configs: %s
`, setting, strings.TrimPrefix(operator.URL, "http://"), enforced, metricRelabelings(t)))
			g.Eventually(func() []map[string]string { return query(g, address, "wechatapptoken_expiration_timestamp_seconds") }, 30*time.Second).
				ShouldNot(gomega.BeEmpty(), "Prometheus scrapes nothing")
			g.Expect(query(g, address, alerts(t)["WeChatAppTokenExpired"].Expr)).To(gomega.ConsistOf(
				map[string]string{"namespace": enforced, "exported_namespace": "shop", "name": "a"}))
			g.Expect(query(g, address, alerts(t)["WeChatTokenOperatorNamespaceUnserved"].Expr)).To(gomega.ConsistOf(
				map[string]string{"namespace": enforced, "exported_namespace": "gone"}))
			g.Expect(query(g, address, "sum without (instance, job) (wechatapptoken_operator_info)")).To(gomega.ConsistOf(
				map[string]string{"namespace": enforced, "version": "v1"}), "a series without a namespace of its own")
		})
	}
}

// metricRelabelings returns those of the ServiceMonitor as Prometheus writes them, and the one that the Prometheus operator appends. The
// chart must have the same.
func metricRelabelings(t *testing.T) string {
	t.Helper()
	block := regexp.MustCompile(`(?m)^    metricRelabelings:\n(?:    - .*\n|      .*\n)+`)
	ours := block.FindString(string(read(t, root+"/config/prometheus/monitor.yaml")))
	charts := block.FindString(string(read(t, root+"/charts/wechat-token-operator/templates/servicemonitor.yaml")))
	if ours == "" || ours != charts {
		t.Errorf("config has\n%s\nthe chart has\n%s", ours, charts)
	}
	monitor := struct {
		Spec struct {
			Endpoints []struct {
				MetricRelabelings []struct {
					SourceLabels []string `json:"sourceLabels"`
					Regex        string   `json:"regex"`
					TargetLabel  string   `json:"targetLabel"`
				} `json:"metricRelabelings"`
			} `json:"endpoints"`
		} `json:"spec"`
	}{}
	if err := yaml.Unmarshal(read(t, root+"/config/prometheus/monitor.yaml"), &monitor); err != nil || len(monitor.Spec.Endpoints) != 1 {
		t.Fatalf("%+v: %v", monitor, err)
	}
	out := []map[string]any{}
	for _, r := range monitor.Spec.Endpoints[0].MetricRelabelings {
		out = append(out, map[string]any{"source_labels": r.SourceLabels, "regex": r.Regex, "target_label": r.TargetLabel})
	}
	out = append(out, map[string]any{"target_label": "namespace", "replacement": enforced})
	raw, err := json.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// startPrometheus starts a Prometheus, which is killed at the end of the test, and returns its address.
func startPrometheus(t *testing.T, config string) string {
	t.Helper()
	path, err := exec.CommandContext(t.Context(), root+"/hack/tools/build.sh", "prometheus").Output()
	if err != nil {
		t.Fatalf("building Prometheus: %v", err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "prometheus.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	address, err := testenv.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(strings.TrimSpace(string(path)), //nolint:gosec // our own; it is killed below
		"--config.file", file, "--storage.tsdb.path", filepath.Join(dir, "data"), "--web.listen-address", address)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // it was killed
		_ = log.Close()
		if t.Failed() {
			t.Logf("Prometheus' log:\n%s", read(t, log.Name()))
		}
	})
	return address
}

// query returns the labels of the samples that a query gives, without the name of the metric; none if Prometheus does not answer.
func query(g gomega.Gomega, address, expr string) []map[string]string {
	client := &http.Client{Timeout: 5 * time.Second}
	res, err := client.Get("http://" + address + "/api/v1/query?query=" + url.QueryEscape(expr))
	if err != nil {
		return nil
	}
	defer res.Body.Close() //nolint:errcheck // it is read
	raw, err := io.ReadAll(res.Body)
	g.Expect(err).NotTo(gomega.HaveOccurred())
	if res.StatusCode != http.StatusOK {
		return nil
	}
	answer := struct {
		Data struct {
			Result []struct {
				Metric map[string]string `json:"metric"`
			} `json:"result"`
		} `json:"data"`
	}{}
	g.Expect(json.Unmarshal(raw, &answer)).To(gomega.Succeed(), string(raw))
	var out []map[string]string
	for _, r := range answer.Data.Result {
		out = append(out, r.Metric)
	}
	return out
}
