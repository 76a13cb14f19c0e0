// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// createClient creates a client of the token "shop" with this status.
func (w *world) createClient(name string, status v1alpha1.WeChatAppClientStatus, mutate ...func(*v1alpha1.WeChatAppClient)) {
	w.Helper()
	c := &v1alpha1.WeChatAppClient{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name},
		Spec: v1alpha1.WeChatAppClientSpec{
			TokenRef: v1alpha1.TokenReference{Name: "shop"}, Paths: []v1alpha1.ClientPath{"/wxa/*"},
			Key: &v1alpha1.ClientKeySpec{SecretName: name + "-key"},
		},
	}
	for _, f := range mutate {
		f(c)
	}
	w.must(w.Create(w.Context(), c))
	c.Status = status
	w.must(w.Status().Update(w.Context(), c))
}

func clientCondition(kind string, is metav1.ConditionStatus, reason, message string) metav1.Condition {
	return metav1.Condition{Type: kind, Status: is, Reason: reason, Message: message, LastTransitionTime: metav1.Now()}
}

func TestClients(t *testing.T) {
	w := newWorld(t, "clients")
	w.createToken("shop")
	w.lookLater("shop")
	now := w.now().Truncate(time.Second)
	w.now = func() time.Time { return now }
	w.createClient("api", v1alpha1.WeChatAppClientStatus{
		Conditions: []metav1.Condition{clientCondition(v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonClientReady, "it may call")},
		Key: &v1alpha1.ClientKeyStatus{
			Fingerprint: "0123456789abcdef", CreateTime: metav1.NewTime(now.Add(-2 * time.Hour)),
			PreviousFingerprint: "fedcba9876543210", PreviousUntilTime: new(metav1.NewTime(now.Add(22 * time.Hour))),
		},
	}, func(c *v1alpha1.WeChatAppClient) {
		c.Spec.Login = true
		c.Spec.ServiceAccounts = []v1alpha1.ServiceAccountReference{{Namespace: "web", Name: "api"}}
	})
	w.createClient("jobs", v1alpha1.WeChatAppClientStatus{
		Conditions: []metav1.Condition{
			clientCondition(v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonKeySecretConflict, "Secret is somebody's"),
			clientCondition(v1alpha1.ConditionStalled, metav1.ConditionTrue, v1alpha1.ReasonKeySecretConflict, "Secret is somebody's"),
		},
	})
	w.createClient("new", v1alpha1.WeChatAppClientStatus{}, func(c *v1alpha1.WeChatAppClient) {
		c.Spec.TokenRef.Name, c.Spec.Key = "other", nil
		c.Spec.ServiceAccounts = []v1alpha1.ServiceAccountReference{{Namespace: "web", Name: "api"}}
		c.Labels = map[string]string{"team": "web"}
	})
	for args, want := range map[string][]string{
		"clients":         {"NAME   TOKEN   READY     KEY                KEY AGE   LOGIN", "api    shop    True      0123456789abcdef   120m      yes", "jobs   shop    False     -", "new    other   Unknown   -", "NotSeenYet"},
		"clients -o wide": {"api-key", "it may call", "Secret is somebody's"},
		"clients -A":      {"NAMESPACE", w.namespace + "   api"},
		"clients -o name": {"wechatappclient.wechat.apptoken.dev/api\nwechatappclient.wechat.apptoken.dev/jobs\n"},
		"status shop":     {"Clients\n  api    ClientReady         key 0123456789abcdef in Secret api-key, 1 ServiceAccount, logs users in\n  jobs   KeySecretConflict   key - in Secret jobs-key\n"},
	} {
		got := w.ok(strings.Fields(args)...)
		for _, text := range want {
			if !strings.Contains(got, text) {
				t.Errorf("%s has no %q:\n%s", args, text, got)
			}
		}
	}
	if got := w.ok("clients", "-l", "team=web", "--no-headers"); strings.Count(got, "\n") != 1 || !strings.HasPrefix(got, "new ") {
		t.Errorf("by label:\n%s", got)
	}
	if got := w.ok("status", "shop"); strings.Contains(got, "new ") {
		t.Errorf("the client of another token is shown:\n%s", got)
	}
	var l v1alpha1.WeChatAppClientList
	w.must(json.Unmarshal([]byte(w.ok("clients", "-o", "json")), &l))
	if len(l.Items) != 3 || l.Kind != "WeChatAppClientList" {
		t.Errorf("-o json: %+v", l)
	}
}

func TestClientsOfNothing(t *testing.T) {
	w := newBareWorld(t, "clients-nothing")
	if r := w.wxtoken("clients"); r.code != exitOK || r.out != "" || !strings.Contains(r.err, "No WeChatAppClients found in namespace") {
		t.Errorf("%+v", r)
	}
}
