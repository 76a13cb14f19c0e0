// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// largestStatus has every field at its limit.
func largestStatus() v1alpha1.WeChatAppTokenStatus {
	now := metav1.NewTime(time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC))
	value := strings.Repeat("v", v1alpha1.RequestValueMaxLength)
	status := v1alpha1.WeChatAppTokenStatus{
		ObservedGeneration:    1,
		Token:                 &v1alpha1.TokenStatus{Mode: v1alpha1.ModeLegacy, IssueTime: now, ExpirationTime: now, Fingerprint: "0123456789abcdef"},
		NextRefreshTime:       &now,
		TargetSecretName:      strings.Repeat("t", 253),
		TargetResourceVersion: strings.Repeat("1", 64),
		CredentialsVersion:    strings.Repeat("c", 128),
		LastError: &v1alpha1.RefreshError{
			Code: -1, Reason: strings.Repeat("R", 64), Message: strings.Repeat("字", 1024), RequestID: strings.Repeat("a", 128), Time: now,
			RetryTime: &now, Attempts: 1 << 30, Generation: 1, CredentialsVersion: strings.Repeat("c", 128),
		},
		Delivery:        &v1alpha1.DeliveryStatus{Fingerprint: "0123456789abcdef", Pods: 1 << 30, Reached: 1 << 30, Time: now},
		HandledRequests: &v1alpha1.HandledRequests{Check: value, Refresh: value, Revoke: value},
		Revocation:      &v1alpha1.RevocationStatus{Value: value, Victim: "0123456789abcdef", FirstForcedTime: &now},
	}
	for i := range 16 {
		status.Conditions = append(status.Conditions, metav1.Condition{
			Type: fmt.Sprintf("Condition%d", i), Status: metav1.ConditionTrue, Reason: "Reason", Message: strings.Repeat("m", 1024), LastTransitionTime: now,
		})
	}
	for _, kind := range v1alpha1.TicketTypes() {
		status.Tickets = append(status.Tickets, v1alpha1.TicketStatus{Type: kind, IssueTime: now, ExpirationTime: now, Fingerprint: "0123456789abcdef"})
	}
	for range 64 {
		status.ForcedRefreshes = append(status.ForcedRefreshes, now)
	}
	return status
}

// tryStatus runs the cases as merge patches of a status that has every field at its limit.
func tryStatus(t *testing.T, cases []specCase) {
	t.Helper()
	u := create(t, newNamespace(t), "shop", "")
	token := decode(t, u)
	token.Status = largestStatus()
	if err := api.Status().Update(t.Context(), token); err != nil {
		t.Fatalf("a status with every field at its limit: %v", err)
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			status, err := yaml.YAMLToJSON([]byte(c.spec))
			if err != nil {
				t.Fatal(err)
			}
			stored := u.DeepCopy()
			patch := client.RawPatch(types.MergePatchType, []byte(`{"status": `+string(status)+`}`))
			err = api.Status().Patch(t.Context(), stored, patch, client.DryRunAll)
			if c.field != "" {
				refused(t, err, c.field, c.advice)
			} else if err != nil {
				t.Error(err)
			} else {
				decode(t, stored)
			}
		})
	}
}

const someTime = "2026-01-02T15:04:05Z"

// conditions is a status with n conditions, the first of which changed at a time.
func conditions(n int, first string) string {
	out := "conditions:\n- {type: Ready, status: 'True', reason: a, message: '', lastTransitionTime: " + first + "}"
	for i := range n - 1 {
		out += fmt.Sprintf("\n- {type: Type%d, status: 'True', reason: a, message: '', lastTransitionTime: %s}", i, someTime)
	}
	return out
}

func TestStatusLimits(t *testing.T) {
	text := func(n int) string { return strings.Repeat("字", n) } // a limit is one of characters
	var cases []specCase
	for _, c := range []struct {
		parent, field string
		limit         int
	}{
		{"", "targetSecretName", 253},
		{"", "targetResourceVersion", 64},
		{"", "credentialsVersion", 128},
		{"token", "fingerprint", 16},
		{"lastError", "reason", 64},
		{"lastError", "message", 1024},
		{"lastError", "requestID", 128},
		{"lastError", "credentialsVersion", 128},
		{"handledRequests", "check", v1alpha1.RequestValueMaxLength},
		{"handledRequests", "refresh", v1alpha1.RequestValueMaxLength},
		{"handledRequests", "revoke", v1alpha1.RequestValueMaxLength},
		{"revocation", "value", v1alpha1.RequestValueMaxLength},
		{"revocation", "victim", 16},
	} {
		path := strings.Trim(c.parent+"."+c.field, ".")
		status := func(n int) string {
			if c.parent == "" {
				return c.field + ": " + text(n)
			}
			return c.parent + ": {" + c.field + ": " + text(n) + "}"
		}
		cases = append(cases,
			specCase{name: path, spec: status(c.limit)},
			specCase{name: path + " too long", spec: status(c.limit + 1), field: "status." + path, advice: fmt.Sprintf("may not be more than %d", c.limit)})
	}
	tryStatus(t, append(cases, []specCase{
		{name: "mode Stable", spec: "token: {mode: Stable}"},
		{name: "no mode", spec: "token: {mode: stable}", field: "status.token.mode", advice: "supported values"},
		{name: "no issueTime", spec: "token: {issueTime: null}", field: "status.token.issueTime", advice: "Required value"},
		{name: "no expirationTime", spec: "token: {expirationTime: null}", field: "status.token.expirationTime", advice: "Required value"},
		{name: "no reason", spec: "lastError: {reason: null}", field: "status.lastError.reason", advice: "Required value"},
		{name: "empty reason", spec: "lastError: {reason: ''}", field: "status.lastError.reason", advice: "at least 1 chars long"},
		{name: "no time", spec: "lastError: {time: null}", field: "status.lastError.time", advice: "Required value"},
		{name: "no pods", spec: "delivery: {pods: 0, reached: 0}"},
		{name: "less than no pods", spec: "delivery: {pods: -1}", field: "status.delivery.pods", advice: "greater than or equal to 0"},
		{name: "less than none reached", spec: "delivery: {reached: -1}", field: "status.delivery.reached", advice: "greater than or equal to 0"},
		{name: "a delivery of nothing", spec: `delivery: {fingerprint: ""}`, field: "status.delivery.fingerprint", advice: "at least 1"},
		{name: "a revocation of nothing", spec: "revocation: {value: null}", field: "status.revocation.value", advice: "Required value"},
		{name: "a revocation of an empty value", spec: `revocation: {value: ""}`, field: "status.revocation.value", advice: "at least 1 chars long"},
		{name: "a revocation without a forced call", spec: "revocation: {victim: null, firstForcedTime: null}"},
		{name: "16 conditions", spec: conditions(16, someTime)},
		{name: "17 conditions", spec: conditions(17, someTime), field: "status.conditions", advice: "must have at most 16 items"},
		{name: "65 forced refreshes", spec: "forcedRefreshes: [" + strings.Repeat(someTime+", ", 65) + "]", field: "status.forcedRefreshes", advice: "must have at most 64 items"},
	}...))
}

// TestStatusTimes: a time that Go cannot parse would stop every informer of the kind.
func TestStatusTimes(t *testing.T) {
	var cases []specCase
	for value, good := range map[string]bool{
		someTime: true, "2026-01-02T23:04:05+08:00": true, "2026-01-02T15:04:05.123456789Z": true,
		// The schema takes these for a date-time.
		"2026-01-02t15:04:05z": false, "2026-01-02T15:04:05_5Z": false, "2026-01-02T15:04:05+99:99": false,
	} {
		for field, status := range map[string]string{
			"nextRefreshTime":            "nextRefreshTime: " + value,
			"token.issueTime":            "token: {issueTime: " + value + "}",
			"token.expirationTime":       "token: {expirationTime: " + value + "}",
			"delivery.time":              "delivery: {time: " + value + "}",
			"lastError.time":             "lastError: {time: " + value + "}",
			"lastError.retryTime":        "lastError: {retryTime: " + value + "}",
			"revocation.firstForcedTime": "revocation: {firstForcedTime: " + value + "}",
			"forcedRefreshes":            "forcedRefreshes: [" + someTime + ", " + value + "]",
			"conditions":                 conditions(2, value),
		} {
			c := specCase{name: field + " " + value, spec: status}
			if !good {
				c.field, c.advice = "status."+field, "must be a time such as "+someTime
			}
			cases = append(cases, c)
		}
	}
	tryStatus(t, cases)
}

// TestStatusNumbers: a number that does not fit into its field would stop every informer of the kind too. v1.31 does not look at formats.
func TestStatusNumbers(t *testing.T) {
	var cases []specCase
	for _, c := range []struct {
		parent, field string
		smallest      int64
	}{
		{"lastError", "code", math.MinInt32},
		{"lastError", "attempts", math.MinInt32},
		{"delivery", "pods", 0},
		{"delivery", "reached", 0},
	} {
		path := "status." + c.parent + "." + c.field
		spec := func(n int64) string { return fmt.Sprintf("%s: {%s: %d}", c.parent, c.field, n) }
		cases = append(cases,
			specCase{name: path + " smallest", spec: spec(c.smallest)},
			specCase{name: path + " too small", spec: spec(c.smallest - 1), field: path, advice: "greater than or equal to"},
			specCase{name: path + " largest", spec: spec(math.MaxInt32)},
			specCase{name: path + " too large", spec: spec(math.MaxInt32 + 1), field: path, advice: "less than or equal to 2147483647"})
	}
	for name, spec := range map[string]string{
		"status.observedGeneration":   "observedGeneration: 9223372036854775808",
		"status.lastError.generation": "lastError: {generation: 9223372036854775808}",
	} {
		cases = append(cases, specCase{name: name, spec: spec, field: name, advice: "must be of type int"})
	}
	tryStatus(t, cases)
}

// TestStatusOfANewResource: it says that nothing was observed, wherever it is read, and hinders no update.
func TestStatusOfANewResource(t *testing.T) {
	namespace := newNamespace(t)
	u := resource(t, namespace, "shop", "")
	u.Object["status"] = map[string]any{"observedGeneration": 7, "targetSecretName": "forged"}
	if err := api.Create(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	unseen := func(when string, u *unstructured.Unstructured) {
		t.Helper()
		want := map[string]any{"observedGeneration": int64(-1)}
		if got := u.Object["status"]; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s the status is %v, want %v", when, got, want)
		}
	}
	unseen("after the creation", u)

	watch, err := api.Watch(t.Context(), emptyList(), client.InNamespace(namespace))
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Stop()
	select {
	case e := <-watch.ResultChan():
		unseen("in a watch", e.Object.(*unstructured.Unstructured))
	case <-time.After(10 * time.Second):
		t.Error("the watch says nothing")
	}

	if err := unstructured.SetNestedField(u.Object, "Legacy", "spec", "mode"); err != nil {
		t.Fatal(err)
	}
	u.Object["status"] = map[string]any{"observedGeneration": 2, "targetSecretName": "forged"}
	if err := api.Update(t.Context(), u); err != nil {
		t.Fatalf("updating the spec: %v", err)
	}
	unseen("after an update of the spec", u)
	if u.GetGeneration() != 2 {
		t.Errorf("the generation is %d, want 2", u.GetGeneration())
	}
	patch := client.RawPatch(types.MergePatchType, []byte(`{"status": {"observedGeneration": 2}}`))
	if err := api.Patch(t.Context(), u, patch); err != nil {
		t.Fatal(err)
	}
	unseen("after a patch of the main resource", u)

	// And the other way round: a status write changes neither spec nor generation.
	both := client.RawPatch(types.MergePatchType, []byte(`{"spec": {"suspend": true}, "status": {"observedGeneration": 2}}`))
	if err := api.Status().Patch(t.Context(), u, both); err != nil {
		t.Fatal(err)
	}
	if token := decode(t, u); token.Spec.Suspend || token.Generation != 2 || token.Status.ObservedGeneration != 2 {
		t.Errorf("after a status write: suspend %t, generation %d, observed %d", token.Spec.Suspend, token.Generation, token.Status.ObservedGeneration)
	}
}

func emptyList() *unstructured.UnstructuredList {
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(v1alpha1.Kind + "List"))
	return list
}
