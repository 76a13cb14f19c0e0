// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat"
)

// busy returns a rig in which every metric has a series.
func busy(t testing.TB) *rig {
	t.Helper()
	failing, legacy := healthy(1), healthy(2)
	legacy.Spec.Mode = v1alpha1.ModeLegacy
	failing.Status.Conditions[0].Status = "False"
	failing.Status.LastError = &v1alpha1.RefreshError{Code: 45009, Reason: v1alpha1.ReasonDailyQuotaExhausted}
	legacy.Spec.Tickets = []v1alpha1.TicketSpec{{Type: v1alpha1.TicketJSAPI}}
	legacy.Status.Tickets = []v1alpha1.TicketStatus{{Type: v1alpha1.TicketJSAPI}}
	r := newRig(t, failing, legacy)
	r.recorder.Refreshed(refresh.RefreshDue)
	r.recorder.RefreshFailed(refresh.Expired)
	r.recorder.Rotated(time.Second)
	r.recorder.Delivered(time.Second)
	r.recorder.PodReached()
	r.recorder.PodDeliveryFailed()
	r.recorder.PodsDelivered(time.Second)
	r.recorder.ForeignFetch(legacy.UID)
	r.recorder.Checked(failing.UID, epoch)
	r.calls.Observe(wechat.Call{Endpoint: "token", Host: "api.weixin.qq.com", Outcome: wechat.OutcomeSuccess, Duration: time.Second})
	served, err := NewNamespaces(r)
	if err != nil {
		t.Fatal(err)
	}
	served("shop", true)
	return r
}

// exposition returns the text that Prometheus reads.
func exposition(t testing.TB, r *rig) *bytes.Buffer {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := &bytes.Buffer{}
	encoder := expfmt.NewEncoder(out, expfmt.NewFormat(expfmt.TypeTextPlain))
	for _, f := range families {
		if err := encoder.Encode(f); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func TestLint(t *testing.T) {
	problems, err := promlint.New(exposition(t, busy(t))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestFamilies compares the metrics that are served with Families.
func TestFamilies(t *testing.T) {
	served, err := busy(t).Gather()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, s := range served {
		f := family(s.GetName())
		names[f.Name] = true
		if got := strings.ToLower(s.GetType().String()); got != string(f.Type) || s.GetHelp() != f.Help {
			t.Errorf("%s is a %s with help %q", f.Name, got, s.GetHelp())
		}
		var labels []string
		for _, l := range s.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		slices.Sort(labels)
		if want := slices.Sorted(slices.Values(f.Labels)); !slices.Equal(labels, want) {
			t.Errorf("%s has the labels %q, want %q", f.Name, labels, want)
		}
	}
	for _, f := range Families() {
		if !names[f.Name] {
			t.Errorf("%s is not served", f.Name)
		}
	}
}

// TestCallsAreBounded checks that the number of series stays small whatever WeChat answers.
func TestCallsAreBounded(t *testing.T) {
	r := newRig(t)
	known := 0
	for code := range 100000 {
		if wechat.KnownCode(code) {
			known++
		}
		r.calls.Observe(wechat.Call{Endpoint: "token", Host: "h", Outcome: "RequestRejected", Code: code})
	}
	if known < 20 {
		t.Fatalf("only %d codes are known", known)
	}
	requests := 0
	for series, n := range r.series(t) {
		if !strings.HasPrefix(series, nameRequests) {
			continue
		}
		requests++
		if strings.Contains(series, "errcode=other,") && n != float64(100000-known-1) {
			t.Errorf("%s counts %v, want %d", series, n, 100000-known-1)
		}
	}
	if want := known + 2; requests != want { // the others, and calls without an errcode
		t.Errorf("%d series, want %d", requests, want)
	}
}

func TestCalls(t *testing.T) {
	r := newRig(t)
	r.calls.Observe(wechat.Call{Endpoint: "stable_token", Host: "a", Outcome: wechat.OutcomeSuccess, Duration: 20 * time.Millisecond})
	r.calls.Observe(wechat.Call{Endpoint: "stable_token", Host: "a", Outcome: "SystemBusy", Code: -1, Duration: time.Second})
	r.calls.Observe(wechat.Call{Endpoint: "stable_token", Host: "b", Outcome: "Unreachable", Duration: time.Minute})
	got := r.series(t)
	for series, want := range map[string]float64{
		"wechat_api_requests_total{endpoint=stable_token,errcode=,host=a,outcome=Success}":      1,
		"wechat_api_requests_total{endpoint=stable_token,errcode=-1,host=a,outcome=SystemBusy}": 1,
		"wechat_api_requests_total{endpoint=stable_token,errcode=,host=b,outcome=Unreachable}":  1,
		"wechat_api_request_duration_seconds{endpoint=stable_token,host=a}":                     2,
		"wechat_api_request_duration_seconds{endpoint=stable_token,host=b}":                     1,
	} {
		if got[series] != want {
			t.Errorf("%s is %v, want %v", series, got[series], want)
		}
	}
}

func TestRecorder(t *testing.T) {
	r := newRig(t)
	r.recorder.Refreshed(refresh.RefreshDue)
	r.recorder.Refreshed(refresh.RefreshDue)
	r.recorder.RefreshFailed(refresh.CheckDue)
	r.recorder.Rotated(-time.Second) // a clock was corrected
	r.recorder.Delivered(time.Hour)
	r.recorder.PodReached()
	r.recorder.PodReached()
	r.recorder.PodDeliveryFailed()
	r.recorder.PodsDelivered(time.Second)
	got := r.series(t)
	for series, want := range map[string]float64{
		"wechatapptoken_refresh_total{reason=RefreshDue,result=success}": 2,
		"wechatapptoken_refresh_total{reason=CheckDue,result=failure}":   1,
		"wechatapptoken_rotation_lateness_seconds{}":                     1,
		"wechatapptoken_delivery_duration_seconds{}":                     1,
		"wechatapptoken_pod_delivery_duration_seconds{}":                 1,
		"wechatapptoken_pods_reached_total{}":                            2,
		"wechatapptoken_pod_delivery_failures_total{}":                   1,
	} {
		if got[series] != want {
			t.Errorf("%s is %v, want %v", series, got[series], want)
		}
	}
}

const many = 10000

func manyHealthy() []v1alpha1.WeChatAppToken {
	tokens := make([]v1alpha1.WeChatAppToken, many)
	for i := range tokens {
		tokens[i] = healthy(i)
	}
	return tokens
}

// TestManyResources checks the number of series and the allocations of a scrape of 10,000 resources, also after many rotations.
func TestManyResources(t *testing.T) {
	const seriesPerResource = 6
	perOperator := 7 + 2*len(refresh.FetchReasons())
	r := newRig(t, manyHealthy()...)
	if got := len(r.series(t)); got != many*seriesPerResource+perOperator {
		t.Errorf("%d series, want %d for each of %d resources and %d of the operator", got, seriesPerResource, many, perOperator)
	}
	for range many {
		r.recorder.Refreshed(refresh.RefreshDue)
		r.recorder.Rotated(time.Second)
		r.calls.Observe(wechat.Call{Endpoint: "stable_token", Host: "a", Outcome: wechat.OutcomeSuccess})
	}
	if got := len(r.series(t)); got != many*seriesPerResource+perOperator+2 {
		t.Errorf("%d series after as many rotations", got)
	}
	allocations := testing.AllocsPerRun(1, func() { exposition(t, r) })
	if most := float64(many * seriesPerResource * 30); allocations > most {
		t.Errorf("a scrape makes %v allocations, more than %v", allocations, most)
	}
}

// BenchmarkScrape measures a scrape of 10,000 resources, including the text of the answer.
func BenchmarkScrape(b *testing.B) {
	r := newRig(b, manyHealthy()...)
	b.ReportAllocs()
	for b.Loop() {
		if size := exposition(b, r).Len(); size == 0 {
			b.Fatal(fmt.Errorf("an empty scrape"))
		}
	}
}
