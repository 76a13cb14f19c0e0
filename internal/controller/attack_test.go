// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// user is a client with the right to use WeChatAppTokens in a namespace and to see its events, and no other.
func (w *world) user(namespace string) client.Client {
	w.Helper()
	name := "user-of-" + namespace
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "events"}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{"events.k8s.io"}, Resources: []string{"events"}, Verbs: []string{"list"}},
	}}
	w.must(w.Create(w.Context(), role))
	for kind, role := range map[string]string{"ClusterRole": "wechatapptoken-editor-role", "Role": "events"} {
		w.must(w.Create(w.Context(), &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "user-" + role},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: role},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name}},
		}))
	}
	config := rest.CopyConfig(env.Config)
	config.Impersonate = rest.ImpersonationConfig{UserName: name}
	c, err := client.New(config, client.Options{Scheme: scheme()})
	w.must(err)
	// The API server learns of bindings a moment later.
	w.Eventually(func() error {
		return c.List(w.Context(), &v1alpha1.WeChatAppTokenList{}, client.InNamespace(namespace))
	}).Should(gomega.Succeed())
	return c
}

// TestUserWithoutSecrets: who may use WeChatAppTokens and may not read Secrets gets to see no AppSecret and no token,
// cannot tell the operator what to believe, and cannot have somebody's Secret overwritten.
func TestUserWithoutSecrets(t *testing.T) {
	w := newWorld(t)
	w.startOperator()
	w.createCredentials(appSecret)
	w.createSecret("theirs", map[string]string{"access_token": "theirs"})
	user := w.user(w.namespace)

	forged := newToken(w.namespace, "shop")
	forged.Status = v1alpha1.WeChatAppTokenStatus{ObservedGeneration: 1, Token: &v1alpha1.TokenStatus{
		Mode: v1alpha1.ModeStable, Fingerprint: "0123456789abcdef",
		IssueTime: metav1.Now(), ExpirationTime: metav1.NewTime(w.clock.now().Add(2 * time.Hour)),
	}}
	w.must(user.Create(w.Context(), forged))
	value := w.eventuallyReady("shop") // the forged status did not count
	greedy := newToken(w.namespace, "greedy", func(t *v1alpha1.WeChatAppToken) { t.Spec.Target.Name = "theirs" })
	w.must(user.Create(w.Context(), greedy))
	w.eventuallyReason("greedy", v1alpha1.ReasonTargetConflict)
	w.must(user.Delete(w.Context(), greedy))
	if got := w.value("theirs"); got != "theirs" {
		t.Errorf("somebody's Secret holds %q", got)
	}

	consent := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"annotations":{"`+v1alpha1.AnnotationAdopt+`":"shop/`+appID+`"}}}`))
	shop := w.token("shop")
	believed := shop.DeepCopy()
	believed.Status.Token = nil
	for what, err := range map[string]error{
		"reading the token":      user.Get(w.Context(), client.ObjectKey{Namespace: w.namespace, Name: "shop"}, &corev1.Secret{}),
		"listing Secrets":        user.List(w.Context(), &corev1.SecretList{}, client.InNamespace(w.namespace)),
		"giving consent":         user.Patch(w.Context(), w.secret("theirs"), consent),
		"forging the status":     user.Status().Patch(w.Context(), believed, client.MergeFrom(shop)),
		"a neighbour's resource": user.Create(w.Context(), newToken(w.newNamespace(), "shop")),
	} {
		if !apierrors.IsForbidden(err) {
			t.Errorf("%s: the API server did not say Forbidden but %v", what, err)
		}
	}

	tokens, events := &v1alpha1.WeChatAppTokenList{}, &eventsv1.EventList{}
	w.must(user.List(w.Context(), tokens, client.InNamespace(w.namespace)))
	w.must(user.List(w.Context(), events, client.InNamespace(w.namespace)))
	seen, err := json.Marshal([]any{tokens, events})
	w.must(err)
	for _, secret := range []string{appSecret, value} {
		if strings.Contains(string(seen), secret) {
			t.Errorf("the user sees %s…", secret[:8])
		}
	}
}

// TestNeighbour: who may use WeChatAppTokens in another namespace, and knows the appid but not the AppSecret, gets no token,
// disturbs nobody, and learns nothing about who else uses the account.
func TestNeighbour(t *testing.T) {
	for _, mode := range []v1alpha1.Mode{v1alpha1.ModeStable, v1alpha1.ModeLegacy} {
		t.Run(string(mode), func(t *testing.T) {
			w := newWorld(t)
			neighbour := w.newNamespace()
			w.startOperator(neighbour)
			w.createCredentials(appSecret)
			w.createToken("shop", func(t *v1alpha1.WeChatAppToken) { t.Spec.Mode = mode })
			value := w.eventuallyReady("shop")

			guess := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: neighbour, Name: "credentials"},
				StringData: map[string]string{"appSecret": strings.Repeat("f", 32)}}
			w.must(w.Create(w.Context(), guess))
			attack := newToken(neighbour, "attack", func(t *v1alpha1.WeChatAppToken) {
				t.Spec.Mode = mode
				t.Annotations = map[string]string{v1alpha1.AnnotationRevokeRequestedAt: "1"}
			})
			w.must(w.user(neighbour).Create(w.Context(), attack))
			key := client.ObjectKeyFromObject(attack)
			w.Eventually(func() string {
				w.must(w.Get(w.Context(), key, attack))
				if attack.Status.LastError == nil {
					return ""
				}
				return attack.Status.LastError.Reason
			}).Should(gomega.Equal(v1alpha1.ReasonAppSecretInvalid))
			if err := w.Get(w.Context(), key, &corev1.Secret{}); !apierrors.IsNotFound(err) {
				t.Errorf("the attacker has a target Secret (%v)", err)
			}
			if status, err := json.Marshal(attack.Status); err != nil || strings.Contains(string(status), w.namespace) {
				t.Errorf("the status tells of another namespace, or %v: %s", err, status)
			}
			if w.value("shop") != value || !w.wechat.Valid(value) || w.forcedCalls() > 0 {
				t.Error("the attack disturbed the token")
			}
		})
	}
}
