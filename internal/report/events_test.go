// SPDX-License-Identifier: Apache-2.0

package report

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
)

// says returns a status with these conditions, each "<type> <reason>".
func says(conditions ...string) v1alpha1.WeChatAppTokenStatus {
	var s v1alpha1.WeChatAppTokenStatus
	for _, c := range conditions {
		kind, reason, _ := strings.Cut(c, " ")
		s.Conditions = append(s.Conditions, metav1.Condition{Type: kind, Reason: reason, Message: "what to do"})
	}
	return s
}

func TestTransitions(t *testing.T) {
	const failing = "RefreshFailing "
	for name, test := range map[string]struct {
		before, after []string
		want          []string
	}{
		"nothing changed":                  {[]string{failing + "IPNotAllowed", "Ready TokenValid"}, []string{failing + "IPNotAllowed", "Ready TokenValid"}, nil},
		"the first token":                  {nil, []string{"Ready TokenValid"}, nil},
		"no token yet":                     {nil, []string{"Ready TokenNotIssued"}, nil},
		"expired":                          {[]string{"Ready TokenValid"}, []string{"Ready TokenExpired"}, nil},
		"it fails":                         {[]string{"Ready TokenValid"}, []string{failing + "IPNotAllowed", "Ready TokenValid"}, []string{"Warning RefreshFailed IPNotAllowed: what to do"}},
		"it fails at once":                 {nil, []string{failing + "IPNotAllowed", "Ready IPNotAllowed"}, []string{"Warning RefreshFailed IPNotAllowed: what to do"}},
		"it fails in another way":          {[]string{failing + "IPNotAllowed"}, []string{failing + "SystemBusy"}, []string{"Warning RefreshFailed SystemBusy: what to do"}},
		"it works again":                   {[]string{failing + "IPNotAllowed", "Ready TokenValid"}, []string{"Ready TokenValid"}, []string{"Normal Recovered the cause of IPNotAllowed is gone"}},
		"it works again, and is valid":     {[]string{failing + "IPNotAllowed", "Ready IPNotAllowed"}, []string{"Ready TokenValid"}, []string{"Normal Recovered the cause of IPNotAllowed is gone"}},
		"the API server cannot be read":    {[]string{"Ready TokenValid"}, []string{failing + "KubernetesAPIError", "Ready TokenValid"}, []string{"Warning RefreshFailed KubernetesAPIError: what to do"}},
		"conflict":                         {[]string{"Ready TokenValid"}, []string{"Ready TargetConflict"}, []string{"Warning TargetConflict what to do"}},
		"conflict from the first":          {nil, []string{"Ready TargetConflict"}, []string{"Warning TargetConflict what to do"}},
		"still a conflict":                 {[]string{"Ready TargetConflict"}, []string{"Ready TargetConflict"}, nil},
		"contested":                        {[]string{"Ready TokenValid"}, []string{"Ready TargetContested"}, []string{"Warning TargetContested what to do"}},
		"terminating":                      {[]string{"Ready TokenValid"}, []string{"Ready TargetTerminating"}, nil},
		"a failure, and then the conflict": {[]string{failing + "SystemBusy", "Ready SystemBusy"}, []string{"Ready TargetConflict"}, []string{"Normal Recovered the cause of SystemBusy is gone", "Warning TargetConflict what to do"}},
		"an empty status":                  {[]string{"Ready TokenValid"}, nil, nil},
	} {
		var got []string
		for _, e := range Transitions(says(test.before...), says(test.after...)) {
			got = append(got, e.Type+" "+e.Reason+" "+e.Note)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

func TestRequestEvents(t *testing.T) {
	reasons := map[refresh.RequestKind]string{
		refresh.RequestCheck: "RequestedCheck", refresh.RequestRefresh: "RequestedRefresh", refresh.RequestRevoke: "RequestedRevoke",
	}
	for _, kind := range refresh.RequestKinds() {
		if e := requestDone(kind); e.Type != corev1.EventTypeNormal || e.Reason != reasons[kind] || e.Note == "" {
			t.Errorf("%s done: %+v", kind, e)
		}
		e := requestFailed(kind, "WeChat named a wait")
		if e.Type != corev1.EventTypeWarning || e.Reason != reasons[kind] || !strings.HasSuffix(e.Note, "set a new value for another one: WeChat named a wait") {
			t.Errorf("%s failed: %+v", kind, e)
		}
	}
	if e := refreshedNothing(); e.Type != corev1.EventTypeWarning || e.Reason != "RequestedRefresh" || !strings.Contains(e.Note, "same token") {
		t.Errorf("refreshed nothing: %+v", e)
	}
	e := ForeignFetcher("wx0123456789abcdef", 2)
	if e.Type != corev1.EventTypeWarning || e.Reason != "ForeignFetcher" || !strings.HasPrefix(e.Note, "2 tokens died early") || !strings.Contains(e.Note, "wx0123456789abcdef") {
		t.Errorf("foreign fetcher: %+v", e)
	}
	if e := requestFailed(refresh.RequestCheck, strings.Repeat("a", 3000)); len(e.Note) != 1000 || !strings.HasSuffix(e.Note, "a...") {
		t.Errorf("a note of %d bytes; the API server refuses more than 1024", len(e.Note))
	}
}
