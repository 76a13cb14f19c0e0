// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// observation is what a Prometheus is given to do.
type observation struct {
	prometheus, dashboard, rules string
}

func (o observation) on() bool { return o.prometheus != "" }

// observation shows the dashboard: enough has to happen that each of its queries has something to say.
func (s *stage) observation() []chapter {
	return []chapter{s.openMetrics, s.prepare, s.startPrometheus, s.issue, s.addTroubles, s.rotate, s.showDashboard, s.showAlerts}
}

func (s *stage) openMetrics(context.Context) (err error) {
	s.metricsAt, err = testenv.FreeAddress()
	return err
}

// addTroubles adds a resource that works in Legacy mode and asks for prompt delivery, one whose AppSecret is wrong, and one that is
// suspended.
func (s *stage) addTroubles(ctx context.Context) error {
	const wrong = "wx00000000000000ff"
	s.wechat.SetApp(wechattest.App{ID: wrong, Secret: "thisIsNotTheAppSecretOfTheSample"})
	for name, spec := range map[string]v1alpha1.WeChatAppTokenSpec{
		"legacy": {
			AppID: "wx00000000000000aa", Mode: v1alpha1.ModeLegacy,
			Target: v1alpha1.TargetSpec{Delivery: v1alpha1.DeliveryPrompt}, // which this operator does not do
		},
		"wrong-secret": {AppID: wrong},
		"suspended":    {AppID: "wx00000000000000ab", Suspend: true},
	} {
		spec.CredentialsSecretRef = s.token.Spec.CredentialsSecretRef
		token := &v1alpha1.WeChatAppToken{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: spec}
		if err := s.client.Create(ctx, token); err != nil {
			return fmt.Errorf("creating WeChatAppToken %s: %w", name, err)
		}
	}
	s.step("three more WeChatAppTokens: one in Legacy mode, one with an AppSecret that WeChat refuses, one that is suspended")
	return nil
}

// panel is what the dashboard shows in one place.
type panel struct {
	Title   string `json:"title"`
	Targets []struct {
		Expr string `json:"expr"`
	} `json:"targets"`
}

// variables of the dashboard, as Grafana would fill them in here.
func variables() *strings.Replacer {
	return strings.NewReplacer("$cluster", ".*", "$namespace", ".*", "$__rate_interval", "15s")
}

// ofGateway begins the names of the gateway's metrics. The demo has no gateway, so their queries return nothing.
const ofGateway = "wechat_gateway_"

// showDashboard runs each query about the operator until it returns data, and prints it with its value.
func (s *stage) showDashboard(ctx context.Context) error {
	text, err := os.ReadFile(s.observe.dashboard)
	if err != nil {
		return fmt.Errorf("reading the dashboard: %w", err)
	}
	dashboard := struct {
		Panels []panel `json:"panels"`
	}{}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		return fmt.Errorf("decoding the dashboard %s: %w", s.observe.dashboard, err)
	}
	begin, queries := time.Now(), 0
	for _, p := range dashboard.Panels {
		for _, t := range p.Targets {
			if strings.Contains(t.Expr, ofGateway) {
				continue
			}
			if err := s.showQuery(ctx, p.Title, variables().Replace(t.Expr)); err != nil {
				return err
			}
			queries++
		}
	}
	if queries == 0 {
		return errors.New("the dashboard has no queries")
	}
	s.say("")
	s.step("%d queries of the dashboard returned data within %s", queries, since(begin))
	return nil
}

func (s *stage) showQuery(ctx context.Context, title, query string) error {
	var points []point
	err := s.eventually(ctx, 20*time.Second, fmt.Sprintf("the query of panel %q returns data: %s", title, query), func() (bool, string) {
		var err error
		if points, err = s.prometheus.query(ctx, query); err != nil {
			return false, err.Error()
		}
		return len(points) > 0 && !slices.ContainsFunc(points, point.empty), fmt.Sprintf("%v", points)
	})
	if err != nil {
		return err
	}
	s.say("\n%s\n    %s", title, strings.ReplaceAll(query, "\n", " "))
	for _, v := range points {
		s.say("    = %s", v)
	}
	return nil
}

// showAlerts prints what the rules make of the demo. The resource with the wrong AppSecret must be among it.
func (s *stage) showAlerts(ctx context.Context) error {
	const alert = "WeChatAppTokenActionNeeded"
	var points []point
	err := s.eventually(ctx, 20*time.Second, alert+" is pending", func() (bool, string) {
		var err error
		if points, err = s.prometheus.query(ctx, "ALERTS"); err != nil {
			return false, err.Error()
		}
		return slices.ContainsFunc(points, func(v point) bool {
			return v.Metric["alertname"] == alert && v.Metric["name"] == "wrong-secret" && v.Metric["reason"] == v1alpha1.ReasonAppSecretInvalid
		}), fmt.Sprintf("%v", points)
	})
	if err != nil {
		return err
	}
	s.say("\nAlerts. Tokens that live for seconds are always about to expire; WeChat's are not.")
	for _, v := range points {
		s.say("    %s %s %s/%s %s", v.Metric["alertstate"], v.Metric["alertname"], v.Metric["namespace"], v.Metric["name"], v.Metric["reason"])
	}
	return nil
}

// point is one value of an instant query.
type point struct {
	Metric map[string]string `json:"metric"`
	Value  [2]any            `json:"value"`
}

func (v point) number() float64 {
	text, _ := v.Value[1].(string)
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return math.NaN()
	}
	return n
}

func (v point) empty() bool { return math.IsNaN(v.number()) }

func (v point) String() string {
	labels := make([]string, 0, len(v.Metric))
	for key, value := range v.Metric {
		labels = append(labels, key+"="+value)
	}
	slices.Sort(labels)
	return strings.TrimSpace(fmt.Sprintf("%.4g  %s", v.number(), strings.Join(labels, " ")))
}
