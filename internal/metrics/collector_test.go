// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

func condition(kind string, status metav1.ConditionStatus, reason string) metav1.Condition {
	return metav1.Condition{Type: kind, Status: status, Reason: reason}
}

// TestResources checks the series of resources in different states.
func TestResources(t *testing.T) {
	const own = "name=shop-00007,namespace=shops"
	tests := map[string]struct {
		mutate func(*v1alpha1.WeChatAppToken)
		want   map[string]float64
	}{
		"healthy": {
			mutate: func(*v1alpha1.WeChatAppToken) {},
			want: map[string]float64{
				"wechatapptoken_info{appid=wx0000000000000007,mode=Stable," + own + ",secret=shop-00007}": 1,
				"wechatapptoken_ready{" + own + "}":                          1,
				"wechatapptoken_suspended{" + own + "}":                      0,
				"wechatapptoken_expiration_timestamp_seconds{" + own + "}":   float64(epoch.Add(time.Hour).Unix()),
				"wechatapptoken_next_refresh_timestamp_seconds{" + own + "}": float64(epoch.Add(55 * time.Minute).Unix()),
				"wechatapptoken_forced_refreshes_left{" + own + "}":          20,
			},
		},
		"just created, with the defaults of an old API server": {
			mutate: func(w *v1alpha1.WeChatAppToken) {
				w.Spec.Mode = ""
				w.Spec.Target.Name = "token"
				w.Status = v1alpha1.WeChatAppTokenStatus{ObservedGeneration: -1}
			},
			want: map[string]float64{
				"wechatapptoken_info{appid=wx0000000000000007,mode=Stable," + own + ",secret=token}": 1,
				"wechatapptoken_ready{" + own + "}":                                                  0,
				"wechatapptoken_suspended{" + own + "}":                                              0,
				"wechatapptoken_forced_refreshes_left{" + own + "}":                                  20,
			},
		},
		"dead, and somebody has to act": {
			mutate: func(w *v1alpha1.WeChatAppToken) {
				w.Spec.Suspend = true
				w.Status.NextRefreshTime = nil
				w.Status.Token.ExpirationTime = metav1.NewTime(epoch.Add(-time.Minute))
				w.Status.Conditions = []metav1.Condition{
					condition(v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonIPNotAllowed),
					condition(v1alpha1.ConditionRefreshFailing, metav1.ConditionTrue, v1alpha1.ReasonIPNotAllowed),
					condition(v1alpha1.ConditionStalled, metav1.ConditionTrue, v1alpha1.ReasonIPNotAllowed),
				}
				w.Status.LastError = &v1alpha1.RefreshError{
					Code: 40164, Reason: v1alpha1.ReasonIPNotAllowed, Message: "a long story", RequestID: "rid", Time: metav1.NewTime(epoch),
				}
			},
			want: map[string]float64{
				"wechatapptoken_info{appid=wx0000000000000007,mode=Stable," + own + ",secret=shop-00007}": 1,
				"wechatapptoken_ready{" + own + "}":                                                                  0,
				"wechatapptoken_suspended{" + own + "}":                                                              1,
				"wechatapptoken_expiration_timestamp_seconds{" + own + "}":                                           float64(epoch.Add(-time.Minute).Unix()),
				"wechatapptoken_condition{" + own + ",reason=IPNotAllowed,status=False,ticket=,type=Ready}":          1,
				"wechatapptoken_condition{" + own + ",reason=IPNotAllowed,status=True,ticket=,type=RefreshFailing}":  1,
				"wechatapptoken_condition{" + own + ",reason=IPNotAllowed,status=True,ticket=,type=Stalled}":         1,
				"wechatapptoken_last_error_timestamp_seconds{errcode=40164," + own + ",reason=IPNotAllowed,ticket=}": float64(epoch.Unix()),
				"wechatapptoken_forced_refreshes_left{" + own + "}":                                                  20,
			},
		},
		"tickets": {
			mutate: func(w *v1alpha1.WeChatAppToken) {
				issued, expires, expired := metav1.NewTime(epoch.Add(-time.Hour)), metav1.NewTime(epoch.Add(time.Hour)), metav1.NewTime(epoch)
				w.Spec.Tickets = []v1alpha1.TicketSpec{{Type: v1alpha1.TicketJSAPI}, {Type: v1alpha1.TicketWXCard, Key: "card"}, {Type: v1alpha1.TicketSDK}}
				w.Status.Tickets = []v1alpha1.TicketStatus{
					{Type: v1alpha1.TicketJSAPI, IssueTime: issued, ExpirationTime: expires},
					{Type: v1alpha1.TicketWXCard, IssueTime: issued, ExpirationTime: expired},
				}
				about := func(kind string, status metav1.ConditionStatus) metav1.Condition {
					return metav1.Condition{Type: kind, Status: status, Reason: v1alpha1.ReasonRateLimited, Message: "ticket sdk: too many calls"}
				}
				w.Status.Conditions = []metav1.Condition{about("Ready", metav1.ConditionFalse), about("RefreshFailing", metav1.ConditionTrue)}
				w.Status.LastError = &v1alpha1.RefreshError{
					Code: 45011, Reason: v1alpha1.ReasonRateLimited, Message: "ticket sdk: too many calls", Time: metav1.NewTime(epoch),
				}
			},
			want: map[string]float64{
				"wechatapptoken_info{appid=wx0000000000000007,mode=Stable," + own + ",secret=shop-00007}": 1,
				"wechatapptoken_ready{" + own + "}":                                                                    0,
				"wechatapptoken_suspended{" + own + "}":                                                                0,
				"wechatapptoken_expiration_timestamp_seconds{" + own + "}":                                             float64(epoch.Add(time.Hour).Unix()),
				"wechatapptoken_next_refresh_timestamp_seconds{" + own + "}":                                           float64(epoch.Add(55 * time.Minute).Unix()),
				"wechatapptoken_forced_refreshes_left{" + own + "}":                                                    20,
				"wechatapptoken_ticket_valid{" + own + ",ticket=jsapi}":                                                1,
				"wechatapptoken_ticket_valid{" + own + ",ticket=wx_card}":                                              0,
				"wechatapptoken_ticket_valid{" + own + ",ticket=sdk}":                                                  0,
				"wechatapptoken_ticket_expiration_timestamp_seconds{" + own + ",ticket=jsapi}":                         float64(epoch.Add(time.Hour).Unix()),
				"wechatapptoken_ticket_expiration_timestamp_seconds{" + own + ",ticket=wx_card}":                       float64(epoch.Unix()),
				"wechatapptoken_ticket_issue_timestamp_seconds{" + own + ",ticket=jsapi}":                              float64(epoch.Add(-time.Hour).Unix()),
				"wechatapptoken_ticket_issue_timestamp_seconds{" + own + ",ticket=wx_card}":                            float64(epoch.Add(-time.Hour).Unix()),
				"wechatapptoken_condition{" + own + ",reason=RateLimited,status=False,ticket=sdk,type=Ready}":          1,
				"wechatapptoken_condition{" + own + ",reason=RateLimited,status=True,ticket=sdk,type=RefreshFailing}":  1,
				"wechatapptoken_last_error_timestamp_seconds{errcode=45011," + own + ",reason=RateLimited,ticket=sdk}": float64(epoch.Unix()),
			},
		},
		"a ticket that the spec has dropped": {
			mutate: func(w *v1alpha1.WeChatAppToken) {
				w.Status.Tickets = []v1alpha1.TicketStatus{{Type: v1alpha1.TicketJSAPI, ExpirationTime: metav1.NewTime(epoch.Add(time.Hour))}}
			},
			want: map[string]float64{
				"wechatapptoken_info{appid=wx0000000000000007,mode=Stable," + own + ",secret=shop-00007}": 1,
				"wechatapptoken_ready{" + own + "}":                          1,
				"wechatapptoken_suspended{" + own + "}":                      0,
				"wechatapptoken_expiration_timestamp_seconds{" + own + "}":   float64(epoch.Add(time.Hour).Unix()),
				"wechatapptoken_next_refresh_timestamp_seconds{" + own + "}": float64(epoch.Add(55 * time.Minute).Unix()),
				"wechatapptoken_forced_refreshes_left{" + own + "}":          20,
			},
		},
		"an errcode that nobody knows": {
			mutate: func(w *v1alpha1.WeChatAppToken) {
				w.Status.LastError = &v1alpha1.RefreshError{Code: 123456, Reason: v1alpha1.ReasonRequestRejected, Time: metav1.NewTime(epoch)}
			},
			want: map[string]float64{
				"wechatapptoken_last_error_timestamp_seconds{errcode=other," + own + ",reason=RequestRejected,ticket=}": float64(epoch.Unix()),
			},
		},
		"Legacy": {
			mutate: func(w *v1alpha1.WeChatAppToken) {
				w.Spec.Mode = v1alpha1.ModeLegacy
				w.Status.ForcedRefreshes = []metav1.Time{metav1.NewTime(epoch)}
			},
			want: map[string]float64{
				"wechatapptoken_info{appid=wx0000000000000007,mode=Legacy," + own + ",secret=shop-00007}": 1,
				"wechatapptoken_foreign_fetches_total{" + own + "}":                                       0,
			},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			token := healthy(7)
			tt.mutate(&token)
			got := newRig(t, token).series(t)
			for series, value := range tt.want {
				if v, ok := got[series]; !ok || v != value {
					t.Errorf("%s is %v (there: %v), want %v", series, v, ok, value)
				}
			}
			_, full := tt.want["wechatapptoken_ready{"+own+"}"]
			for series := range got {
				if _, wanted := tt.want[series]; full && !wanted && strings.Contains(series, own) {
					t.Errorf("unexpected series %s", series)
				}
			}
		})
	}
}

// TestForcedRefreshesLeft checks that all resources of an appid share the budget of 24 hours.
func TestForcedRefreshesLeft(t *testing.T) {
	ago := func(ds ...time.Duration) (out []metav1.Time) {
		for _, d := range ds {
			out = append(out, metav1.NewTime(epoch.Add(-d)))
		}
		return out
	}
	first, second, other, legacy := healthy(1), healthy(2), healthy(3), healthy(4)
	second.Spec.AppID, legacy.Spec.AppID = first.Spec.AppID, first.Spec.AppID
	legacy.Spec.Mode = v1alpha1.ModeLegacy
	first.Status.ForcedRefreshes = ago(24*time.Hour, 23*time.Hour, time.Minute)
	second.Status.ForcedRefreshes = ago(time.Hour)
	legacy.Status.ForcedRefreshes = ago(time.Hour)
	other.Status.ForcedRefreshes = ago(slices.Repeat([]time.Duration{time.Hour}, 25)...)
	got := newRig(t, first, second, other, legacy).series(t)
	for name, want := range map[string]float64{"shop-00001": 17, "shop-00002": 17, "shop-00003": 0} {
		if left := got["wechatapptoken_forced_refreshes_left{name="+name+",namespace=shops}"]; left != want {
			t.Errorf("%s has %v left, want %v", name, left, want)
		}
	}
}

// TestDeletion checks that a deleted resource leaves no series and no count behind.
func TestDeletion(t *testing.T) {
	gone, stays := healthy(1), healthy(2)
	gone.Spec.Mode, stays.Spec.Mode = v1alpha1.ModeLegacy, v1alpha1.ModeLegacy
	r := newRig(t, gone, stays)
	r.recorder.ForeignFetch(gone.UID)
	r.recorder.ForeignFetch(gone.UID)
	r.recorder.ForeignFetch(stays.UID)
	r.recorder.Checked(gone.UID, epoch)
	r.recorder.Checked(stays.UID, epoch.Add(-time.Minute))
	const counter = "wechatapptoken_foreign_fetches_total{name=shop-00001,namespace=shops}"
	if n := r.series(t)[counter]; n != 2 {
		t.Fatalf("%v foreign fetches are shown, want 2", n)
	}

	r.cache.tokens = r.cache.tokens[1:]
	r.recorder.Gone(gone.UID) // nobody may scrape, so nothing waits for it
	if left := slices.Collect(maps.Keys(r.recorder.foreign)); len(left) != 1 || left[0] != stays.UID {
		t.Errorf("counts are kept for %v", left)
	}
	if left := slices.Collect(maps.Keys(r.recorder.checked)); len(left) != 1 || left[0] != stays.UID {
		t.Errorf("times of checks are kept for %v", left)
	}
	for series := range r.series(t) {
		if strings.Contains(series, gone.Name) {
			t.Errorf("%s outlived its resource", series)
		}
	}
	check := r.series(t)["wechatapptoken_last_check_timestamp_seconds{name=shop-00002,namespace=shops}"]
	if want := float64(epoch.Add(-time.Minute).Unix()); check != want {
		t.Errorf("the last check is %v, want %v", check, want)
	}
	if n := r.series(t)["wechatapptoken_foreign_fetches_total{name=shop-00002,namespace=shops}"]; n != 1 {
		t.Errorf("the other resource has %v foreign fetches, want 1", n)
	}
}

// TestCacheNotReady checks that a scrape whose cache cannot be read says so and has all other series.
func TestCacheNotReady(t *testing.T) {
	r := newRig(t, healthy(1))
	r.cache.err = errors.New("not started")
	got := r.series(t)
	if v, ok := got["wechatapptoken_scrape_success{}"]; !ok || v != 0 {
		t.Errorf("wechatapptoken_scrape_success is %v (there: %v), want 0", v, ok)
	}
	if got["wechatapptoken_operator_info{version=v1.2.3}"] != 1 {
		t.Error("the operator's version is missing")
	}
	for series := range got {
		if strings.Contains(series, "shop-") {
			t.Errorf("%s was made of nothing", series)
		}
	}
	r.cache.err = nil
	if r.series(t)["wechatapptoken_scrape_success{}"] != 1 {
		t.Error("the next scrape does not succeed")
	}
}
