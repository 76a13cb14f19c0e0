// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// epoch is the current time in all tests.
var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// cached stands for the manager's cache.
type cached struct {
	client.Reader

	tokens []v1alpha1.WeChatAppToken
	err    error
}

func (c *cached) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	list.(*v1alpha1.WeChatAppTokenList).Items = c.tokens
	return c.err
}

// rig is a registry with everything that the operator registers.
type rig struct {
	*prometheus.Registry

	cache    *cached
	recorder *Recorder
	calls    *Calls
}

func newRig(t testing.TB, tokens ...v1alpha1.WeChatAppToken) *rig {
	t.Helper()
	r := &rig{Registry: prometheus.NewPedanticRegistry(), cache: &cached{tokens: tokens}}
	var err error
	if r.recorder, err = NewRecorder(r); err != nil {
		t.Fatal(err)
	}
	if r.calls, err = NewCalls(r); err != nil {
		t.Fatal(err)
	}
	collector := NewCollector(Options{
		Cache: r.cache, Now: func() time.Time { return epoch }, Recorder: r.recorder, Version: "v1.2.3",
	})
	if err := r.Register(collector); err != nil {
		t.Fatal(err)
	}
	return r
}

// series returns the values of all counters and gauges, and the counts of all histograms, by "name{label=value,…}".
func (r *rig) series(t testing.TB) map[string]float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			value := m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			out[f.GetName()+"{"+strings.Join(labels, ",")+"}"] = value
		}
	}
	return out
}

// healthy returns the i-th of many resources. Its token expires in an hour.
func healthy(i int) v1alpha1.WeChatAppToken {
	expires, due := metav1.NewTime(epoch.Add(time.Hour)), metav1.NewTime(epoch.Add(55*time.Minute))
	name := fmt.Sprintf("shop-%05d", i)
	return v1alpha1.WeChatAppToken{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shops", Name: name, UID: types.UID(name)},
		Spec:       v1alpha1.WeChatAppTokenSpec{AppID: fmt.Sprintf("wx%016x", i), Mode: v1alpha1.ModeStable},
		Status: v1alpha1.WeChatAppTokenStatus{
			Token:           &v1alpha1.TokenStatus{Mode: v1alpha1.ModeStable, IssueTime: metav1.NewTime(epoch), ExpirationTime: expires},
			NextRefreshTime: &due,
			Conditions: []metav1.Condition{
				{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonTokenValid},
			},
		},
	}
}
