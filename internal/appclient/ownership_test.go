// SPDX-License-Identifier: Apache-2.0

package appclient

import (
	"maps"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
)

// rest is what the rest of a namespace is.
type rest struct {
	use, oldest string
	alive       map[types.UID]string
}

func (r rest) user() string                         { return r.use }
func (r rest) older() string                        { return r.oldest }
func (r rest) live(uid types.UID, name string) bool { return r.alive[uid] == name && name != "" }

func TestSettle(t *testing.T) {
	const appID = "wx0123456789abcdef"
	owner := &v1alpha1.WeChatAppClient{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "api", UID: "me"},
		Spec:       v1alpha1.WeChatAppClientSpec{Key: &v1alpha1.ClientKeySpec{SecretName: "key"}},
	}
	type annotations map[string]string
	of := func(kind, uid, name string, more annotations) annotations {
		a := annotations{v1alpha1.AnnotationOwnerUID: uid, v1alpha1.AnnotationOwnerName: name, v1alpha1.AnnotationAppID: appID}
		if kind != "" {
			a[v1alpha1.AnnotationOwnerKind] = kind
		}
		maps.Copy(a, more)
		return a
	}
	reference := func(kind, uid, name string) []metav1.OwnerReference {
		return []metav1.OwnerReference{{APIVersion: v1alpha1.GroupVersion.String(), Kind: kind, UID: types.UID(uid), Name: name}}
	}
	const client = v1alpha1.ClientKind
	consent := annotations{v1alpha1.AnnotationAdopt: "api/" + appID}
	retained := annotations{v1alpha1.AnnotationDeletionPolicy: "Retain"}
	other := map[types.UID]string{"other": "web"}
	for _, c := range []struct {
		name        string
		absent      bool
		annotations annotations
		references  []metav1.OwnerReference
		deleting    bool
		rest        rest
		want        target.Claim
		says        string
	}{
		{name: "no Secret", absent: true, want: target.Create},
		{name: "credentials or target", absent: true, rest: rest{use: "has the AppSecret of x"}, want: target.Conflict, says: "has the AppSecret of x"},
		{name: "its own, but credentials", annotations: of(client, "me", "api", nil), rest: rest{use: "is x"}, want: target.Conflict, says: "is x"},
		{name: "an older client wants it", absent: true, rest: rest{oldest: "web"}, want: target.Conflict, says: `the older WeChatAppClient "web"`},
		{name: "its own", annotations: of(client, "me", "api", nil), rest: rest{oldest: "web"}, want: target.Own},
		{name: "its own by reference", references: reference(client, "me", "api"), want: target.Own},
		{name: "its own with an invented owner", annotations: of(client, "gone", "web", nil), references: reference(client, "me", "api"), want: target.Own},
		{name: "given to another", annotations: of(client, "other", "web", nil), references: reference(client, "me", "api"), rest: rest{alive: other}, want: target.Conflict, says: `"web"`},
		{name: "going", annotations: of(client, "me", "api", nil), deleting: true, want: target.Terminating},
		{name: "a Secret of somebody", want: target.Conflict, says: "kubectl annotate secret -n shop key wechat.apptoken.dev/adopt=api/" + appID},
		{name: "with consent", annotations: consent, want: target.Adopt},
		{name: "with consent for another", annotations: annotations{v1alpha1.AnnotationAdopt: "web/" + appID}, want: target.Conflict},
		{name: "another client's", annotations: of(client, "other", "web", consent), rest: rest{alive: other}, want: target.Conflict, says: `"web"`},
		{name: "another client's by reference", references: reference(client, "other", "web"), rest: rest{alive: other}, want: target.Conflict, says: `"web"`},
		{name: "of one that is gone", annotations: of(client, "gone", "api", retained), references: reference(client, "gone", "api"), want: target.Terminating},
		{name: "kept for the same name", annotations: of(client, "gone", "api", retained), want: target.TakeOver},
		{name: "kept for another name", annotations: of(client, "gone", "web", retained), want: target.Conflict, says: "was left by"},
		{name: "kept for another name, with consent", annotations: of(client, "gone", "web", consent), want: target.Adopt},
		{name: "kept, but of another appid", annotations: of(client, "gone", "api", annotations{v1alpha1.AnnotationDeletionPolicy: "Retain", v1alpha1.AnnotationAppID: "wx1"}), want: target.Conflict},
		{name: "not kept", annotations: of(client, "gone", "api", nil), want: target.Conflict},
		{name: "a target", annotations: of("", "token", "api", retained), want: target.Conflict, says: "holds the token"},
		{name: "a target with consent", annotations: of("", "token", "api", consent), want: target.Conflict},
		{name: "a target with this UID", annotations: of("", "me", "api", nil), want: target.Conflict},
		{name: "a target by reference", references: reference(v1alpha1.Kind, "token", "api"), want: target.Conflict},
	} {
		t.Run(c.name, func(t *testing.T) {
			existing := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Annotations: c.annotations, OwnerReferences: c.references}}
			if c.deleting {
				existing.DeletionTimestamp = new(metav1.NewTime(time.Now()))
			}
			if c.absent {
				existing = nil
			}
			got := settle(owner, appID, existing, c.rest)
			if got.Claim != c.want || !strings.Contains(got.Message, c.says) || (got.Message == "") != got.Writable() {
				t.Errorf("got %+v, want %s: %s", got, c.want, c.says)
			}
		})
	}
}
