// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
)

// scraper is a running Prometheus.
type scraper struct {
	*child

	address string
	client  *http.Client
}

// scrapeConfig is short-winded, as the tokens of the demo are.
const scrapeConfig = `global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [rules.yaml]
scrape_configs:
- job_name: wechat-token-operator
  honor_labels: true
  static_configs: [{targets: [%q]}]
`

// startPrometheus starts a Prometheus that scrapes the operator and evaluates the alerts.
func (s *stage) startPrometheus(ctx context.Context) error {
	if err := s.writeRules(); err != nil {
		return err
	}
	config := filepath.Join(s.dir, "prometheus.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, scrapeConfig, s.metricsAt), 0o600); err != nil {
		return fmt.Errorf("writing Prometheus' configuration: %w", err)
	}
	address, err := testenv.FreeAddress()
	if err != nil {
		return err
	}
	process, err := s.startChild("prometheus", exec.Command(s.observe.prometheus, //nolint:gosec,noctx // the caller's binary; stop ends it
		"--config.file", config, "--storage.tsdb.path", filepath.Join(s.dir, "prometheus"), "--web.listen-address", address))
	if err != nil {
		return err
	}
	s.prometheus = &scraper{child: process, address: address, client: &http.Client{Timeout: 5 * time.Second}}
	err = s.eventually(ctx, 30*time.Second, "Prometheus scrapes the operator", func() (bool, string) {
		up, err := s.prometheus.query(ctx, "up == 1")
		return len(up) == 1, fmt.Sprintf("%v %v", up, err)
	})
	if err != nil {
		return errors.Join(err, logTail(process.log))
	}
	s.step("Prometheus scrapes the operator")
	return nil
}

// writeRules takes out of the PrometheusRule what Prometheus itself reads.
func (s *stage) writeRules() error {
	text, err := os.ReadFile(s.observe.rules)
	if err != nil {
		return fmt.Errorf("reading the rules: %w", err)
	}
	object := struct {
		Spec any `json:"spec"`
	}{}
	if err := yaml.Unmarshal(text, &object); err != nil {
		return fmt.Errorf("decoding the rules %s: %w", s.observe.rules, err)
	}
	if text, err = yaml.Marshal(object.Spec); err != nil {
		return fmt.Errorf("encoding the rules: %w", err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "rules.yaml"), text, 0o600); err != nil {
		return fmt.Errorf("writing the rules: %w", err)
	}
	return nil
}

// query runs one instant query.
func (c *scraper) query(ctx context.Context, query string) ([]point, error) {
	address := "http://" + c.address + "/api/v1/query?" + url.Values{"query": {query}}.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	res, err := c.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close() //nolint:errcheck // it was read
	answer := struct {
		Error string `json:"error"`
		Data  struct {
			Type   string          `json:"resultType"`
			Result json.RawMessage `json:"result"`
		} `json:"data"`
	}{}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		return nil, fmt.Errorf("decoding Prometheus' answer: %w", err)
	}
	if answer.Error != "" {
		return nil, errors.New(answer.Error)
	}
	if answer.Data.Type != "vector" {
		return nil, fmt.Errorf("the result is a %s", answer.Data.Type)
	}
	var points []point
	if err := json.Unmarshal(answer.Data.Result, &points); err != nil {
		return nil, fmt.Errorf("decoding Prometheus' points: %w", err)
	}
	return points, nil
}
