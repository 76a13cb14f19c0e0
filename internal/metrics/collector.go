// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
)

// listTimeout is how long a scrape waits for a cache that is not filled yet.
const listTimeout = 2 * time.Second

// Options are the options of a Collector.
type Options struct {
	// Cache holds the WeChatAppTokens.
	Cache client.Reader
	// Now returns WeChat's time.
	Now func() time.Time
	// Recorder knows what the statuses do not tell: tokens that died early, and the last checks.
	Recorder *Recorder
	// Version is that of the operator.
	Version string
}

// Collector computes the series of all resources at each scrape.
type Collector struct {
	Options

	descs map[string]*prometheus.Desc
}

// NewCollector returns a Collector.
func NewCollector(o Options) *Collector {
	c := &Collector{Options: o, descs: map[string]*prometheus.Desc{}}
	for _, name := range [...]string{
		nameOperatorInfo, nameScrapeSuccess, nameInfo, nameReady, nameSuspended, nameExpiration, nameNextRefresh, nameLastCheck,
		nameCondition, nameLastError, nameForcedLeft, nameForeignFetch, nameTicketValid, nameTicketExpiration, nameTicketIssue,
	} {
		c.descs[name] = family(name).desc()
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(out chan<- prometheus.Metric) {
	s := sink{descs: c.descs, out: out}
	s.gauge(nameOperatorInfo, 1, c.Version)
	tokens, err := c.list()
	s.gauge(nameScrapeSuccess, boolean(err == nil))
	if err != nil {
		return // nameScrapeSuccess is 0, on which the alert WeChatTokenOperatorAbsent depends
	}
	foreign, checked := c.Recorder.ofResources()
	now := c.Now()
	forced := forcedRefreshes(tokens, now)
	for i := range tokens {
		s.resource(&tokens[i])
		s.tickets(&tokens[i], now)
		s.budgets(&tokens[i], forced, foreign)
		if at, known := checked[tokens[i].UID]; known {
			s.gauge(nameLastCheck, float64(at), tokens[i].Namespace, tokens[i].Name)
		}
	}
}

// list returns the resources of the cache. They are not copied and must not be changed.
func (c *Collector) list() ([]v1alpha1.WeChatAppToken, error) {
	ctx, cancel := context.WithTimeout(context.Background(), listTimeout)
	defer cancel()
	list := &v1alpha1.WeChatAppTokenList{}
	if err := c.Cache.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing WeChatAppTokens: %w", err)
	}
	return list.Items, nil
}

// sink sends the series of one scrape.
type sink struct {
	descs map[string]*prometheus.Desc
	out   chan<- prometheus.Metric
}

func (s sink) gauge(name string, value float64, labels ...string) {
	s.out <- prometheus.MustNewConstMetric(s.descs[name], prometheus.GaugeValue, value, labels...)
}

// resource sends the series that a resource determines alone.
func (s sink) resource(t *v1alpha1.WeChatAppToken) {
	mode := t.Spec.Mode
	if mode == "" {
		mode = v1alpha1.ModeStable
	}
	s.gauge(nameInfo, 1, t.Namespace, t.Name, t.Spec.AppID, string(mode), t.TargetName())
	s.gauge(nameSuspended, boolean(t.Spec.Suspend), t.Namespace, t.Name)
	if t.Status.Token != nil {
		s.gauge(nameExpiration, unix(t.Status.Token.ExpirationTime), t.Namespace, t.Name)
	}
	if t.Status.NextRefreshTime != nil {
		s.gauge(nameNextRefresh, unix(*t.Status.NextRefreshTime), t.Namespace, t.Name)
	}
	ready := false
	for _, c := range t.Status.Conditions {
		if c.Type == v1alpha1.ConditionReady && c.Status == metav1.ConditionTrue {
			ready = true
			continue
		}
		s.gauge(nameCondition, 1, t.Namespace, t.Name, c.Type, string(c.Status), c.Reason, string(v1alpha1.TicketOf(c.Message)))
	}
	s.gauge(nameReady, boolean(ready), t.Namespace, t.Name)
	if e := t.Status.LastError; e != nil {
		s.gauge(nameLastError, unix(e.Time), t.Namespace, t.Name, e.Reason, errcode(int(e.Code)), string(v1alpha1.TicketOf(e.Message)))
	}
}

// tickets sends the series of the tickets that a resource asks for. A ticket that the status does not have is not valid.
func (s sink) tickets(t *v1alpha1.WeChatAppToken, now time.Time) {
	for _, wanted := range t.Spec.Tickets {
		valid, kind := false, string(wanted.Type)
		for _, has := range t.Status.Tickets {
			if has.Type == wanted.Type {
				valid = now.Before(has.ExpirationTime.Time)
				s.gauge(nameTicketExpiration, unix(has.ExpirationTime), t.Namespace, t.Name, kind)
				s.gauge(nameTicketIssue, unix(has.IssueTime), t.Namespace, t.Name, kind)
			}
		}
		s.gauge(nameTicketValid, boolean(valid), t.Namespace, t.Name, kind)
	}
}

// budgets sends the series about a resource's account: forced refreshes in Stable mode, and foreign fetches in Legacy mode.
func (s sink) budgets(t *v1alpha1.WeChatAppToken, forced map[string]int, foreign map[types.UID]int) {
	if t.Spec.Mode == v1alpha1.ModeLegacy {
		s.out <- prometheus.MustNewConstMetric(s.descs[nameForeignFetch], prometheus.CounterValue, float64(foreign[t.UID]), t.Namespace, t.Name)
		return
	}
	s.gauge(nameForcedLeft, float64(max(0, refresh.ForcedPerDay-forced[t.Spec.AppID])), t.Namespace, t.Name)
}

// forcedRefreshes returns how many forced refreshes each appid made within the last 24 hours. Only the calls in the statuses are counted.
// WeChat counts them for the account, which the appid identifies for all who hold the right AppSecret.
func forcedRefreshes(tokens []v1alpha1.WeChatAppToken, now time.Time) map[string]int {
	forced := map[string]int{}
	for i := range tokens {
		t := &tokens[i]
		if t.Spec.Mode == v1alpha1.ModeLegacy {
			continue
		}
		for _, at := range t.Status.ForcedRefreshes {
			if now.Sub(at.Time) < 24*time.Hour {
				forced[t.Spec.AppID]++
			}
		}
	}
	return forced
}

func unix(t metav1.Time) float64 { return float64(t.Unix()) }

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
