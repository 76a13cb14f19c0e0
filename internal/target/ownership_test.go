// SPDX-License-Identifier: Apache-2.0

package target

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

const (
	ownUID  = "0c7d3a52-own"
	liveUID = "7b1e9f60-live"
	deadUID = "51d2c8aa-dead"
	appID   = "wx0123456789abcdef"
)

// shop is a WeChatAppToken whose target is the Secret shop-token.
func shop() *v1alpha1.WeChatAppToken {
	return &v1alpha1.WeChatAppToken{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "shop", UID: ownUID},
		Spec: v1alpha1.WeChatAppTokenSpec{
			AppID:                appID,
			CredentialsSecretRef: v1alpha1.CredentialsSecretReference{Name: "shop-wechat", Key: "appSecret"},
			Mode:                 v1alpha1.ModeStable,
			Target: v1alpha1.TargetSpec{
				Name: "shop-token", AccessTokenKey: v1alpha1.DefaultAccessTokenKey, DeletionPolicy: v1alpha1.DeletionDelete,
			},
		},
	}
}

// edit is one thing that is special about an existing Secret.
type edit func(*metav1.PartialObjectMetadata)

func secret(edits ...edit) *metav1.PartialObjectMetadata {
	m := &metav1.PartialObjectMetadata{
		TypeMeta:   secretType(),
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "shop-token", UID: "secret-uid", ResourceVersion: "42"},
	}
	for _, e := range edits {
		e(m)
	}
	return m
}

func annotated(key, value string) edit {
	return func(m *metav1.PartialObjectMetadata) { metav1.SetMetaDataAnnotation(&m.ObjectMeta, key, value) }
}

func labelled(key, value string) edit {
	return func(m *metav1.PartialObjectMetadata) { metav1.SetMetaDataLabel(&m.ObjectMeta, key, value) }
}

func holder(uid string) edit { return annotated(v1alpha1.AnnotationOwnerUID, uid) }

// left are the annotations of a Secret whose resource is gone.
func left(policy v1alpha1.DeletionPolicy, name, app string) edit {
	return func(m *metav1.PartialObjectMetadata) {
		holder(deadUID)(m)
		annotated(v1alpha1.AnnotationOwnerName, name)(m)
		annotated(v1alpha1.AnnotationAppID, app)(m)
		annotated(v1alpha1.AnnotationDeletionPolicy, string(policy))(m)
	}
}

// adopt is the consent that the resource of that name writes the token of appID.
func adopt(name string) edit { return annotated(v1alpha1.AnnotationAdopt, name+"/"+appID) }

func reference(uid string) edit {
	return referenceOf(metav1.OwnerReference{APIVersion: "wechat.apptoken.dev/v1alpha1", Kind: "WeChatAppToken", Name: "shop", UID: types.UID(uid)})
}

func referenceOf(ref metav1.OwnerReference) edit {
	return func(m *metav1.PartialObjectMetadata) { m.OwnerReferences = append(m.OwnerReferences, ref) }
}

var foreignReference = metav1.OwnerReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web", UID: "web-uid"}

// neighbourhood has the live resource "other" with liveUID.
type neighbourhood struct{ older string }

func (neighbourhood) ByUID(uid types.UID, _ string) (string, bool) {
	if uid == liveUID {
		return "other", true
	}
	return "", false
}

func (n neighbourhood) OlderClaimant() (string, bool) { return n.older, n.older != "" }

func TestSettle(t *testing.T) {
	retain, remove := v1alpha1.DeletionRetain, v1alpha1.DeletionDelete
	deleted := func(m *metav1.PartialObjectMetadata) { m.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)} }
	otherVersion := metav1.OwnerReference{APIVersion: "wechat.apptoken.dev/v9", Kind: "WeChatAppToken", Name: "shop", UID: ownUID}
	otherGroup := metav1.OwnerReference{APIVersion: "example.com/v1", Kind: "WeChatAppToken", Name: "shop", UID: ownUID}
	otherKind := metav1.OwnerReference{APIVersion: "wechat.apptoken.dev/v1alpha1", Kind: "WeChatTicket", Name: "shop", UID: ownUID}
	tests := map[string]struct {
		existing *metav1.PartialObjectMetadata
		want     Claim
		says     string
	}{
		"none": {nil, Create, ""},

		"ours":                                {secret(holder(ownUID)), Own, ""},
		"ours, with reference":                {secret(holder(ownUID), reference(ownUID)), Own, ""},
		"ours, Retain":                        {secret(left(retain, "shop", appID), holder(ownUID)), Own, ""},
		"ours, another appid":                 {secret(left(remove, "shop", "wxother"), holder(ownUID)), Own, ""},
		"ours, reference to a live one":       {secret(holder(ownUID), reference(liveUID)), Own, ""},
		"ours, reference to a dead one":       {secret(holder(ownUID), reference(deadUID)), Own, ""},
		"ours, consent to another":            {secret(holder(ownUID), adopt("other")), Own, ""},
		"annotations stripped":                {secret(reference(ownUID)), Own, ""},
		"stripped, reference of a v9":         {secret(referenceOf(otherVersion)), Own, ""},
		"stripped, foreign reference as well": {secret(referenceOf(foreignReference), reference(ownUID)), Own, ""},
		"owner-uid edited, our reference":     {secret(left(retain, "shop", appID), reference(ownUID)), Own, ""},
		"owner-uid nonsense, our reference":   {secret(holder("x"), reference(ownUID)), Own, ""},

		"consent":                          {secret(adopt("shop")), Adopt, ""},
		"consent, foreign reference":       {secret(adopt("shop"), referenceOf(foreignReference)), Adopt, ""},
		"consent, another's kind":          {secret(adopt("shop"), referenceOf(otherGroup)), Adopt, ""},
		"consent on a leftover":            {secret(left(remove, "old", "wxother"), adopt("shop")), Adopt, ""},
		"consent on a retained one":        {secret(left(retain, "shop", appID), adopt("shop")), Adopt, ""},
		"consent to another":               {secret(adopt("other")), Conflict, "consent"},
		"consent to nobody":                {secret(annotated(v1alpha1.AnnotationAdopt, "")), Conflict, "consent"},
		"consent to another appid":         {secret(annotated(v1alpha1.AnnotationAdopt, "shop/wxother")), Conflict, "consent"},
		"consent to a name alone":          {secret(annotated(v1alpha1.AnnotationAdopt, "shop")), Conflict, "consent"},
		"consent, another appid, leftover": {secret(left(remove, "shop", "wxother"), annotated(v1alpha1.AnnotationAdopt, "shop/wxother")), Conflict, "left by"},
		"consent, but another has it":      {secret(holder(liveUID), adopt("shop")), Conflict, `"other"`},
		"consent, another's by reference":  {secret(reference(liveUID), adopt("shop")), Conflict, `"other"`},
		"consent on one to be collected":   {secret(reference(deadUID), adopt("shop")), Terminating, "collected"},
		"no consent":                       {secret(), Conflict, `wechat.apptoken.dev/adopt: "shop/` + appID + `"`},
		"no consent, our label alone":      {secret(labelled(v1alpha1.LabelManagedBy, v1alpha1.ManagedByValue)), Conflict, "consent"},
		"no consent, our name without UID": {secret(annotated(v1alpha1.AnnotationOwnerName, "shop"), annotated(v1alpha1.AnnotationDeletionPolicy, "Retain"), annotated(v1alpha1.AnnotationAppID, appID)), Conflict, "consent"},
		"another kind of our group":        {secret(referenceOf(otherKind)), Conflict, "consent"},
		"another's kind of the same UID":   {secret(referenceOf(otherGroup)), Conflict, "consent"},

		"another's":                          {secret(holder(liveUID)), Conflict, `"other"`},
		"another's, our reference":           {secret(holder(liveUID), reference(ownUID)), Conflict, `"other"`},
		"another's, retained":                {secret(left(retain, "shop", appID), holder(liveUID)), Conflict, `"other"`},
		"another's by reference":             {secret(reference(liveUID)), Conflict, `"other"`},
		"another's by reference, UID edited": {secret(holder(deadUID), reference(liveUID)), Conflict, `"other"`},

		"retained":                        {secret(left(retain, "shop", appID)), TakeOver, ""},
		"retained, foreign reference":     {secret(left(retain, "shop", appID), referenceOf(foreignReference)), TakeOver, ""},
		"retained, another name":          {secret(left(retain, "shop2", appID)), Conflict, `"shop2"`},
		"retained, another appid":         {secret(left(retain, "shop", "wxfedcba9876543210")), Conflict, "wxfedcba9876543210"},
		"left, to be deleted":             {secret(left(remove, "shop", appID)), Conflict, "left by"},
		"left, no policy":                 {secret(holder(deadUID)), Conflict, "left by"},
		"retained, waits to be collected": {secret(left(retain, "shop", appID), reference(deadUID)), Terminating, "collected"},
		"of a dead one":                   {secret(left(remove, "shop", appID), reference(deadUID)), Terminating, "collected"},
		"of a dead one, stripped":         {secret(reference(deadUID)), Terminating, "collected"},

		"being deleted":            {secret(holder(ownUID), deleted), Terminating, "being deleted"},
		"being deleted, foreign":   {secret(deleted), Terminating, "being deleted"},
		"being deleted, consented": {secret(adopt("shop"), deleted), Terminating, "being deleted"},
		"being deleted, another's": {secret(holder(liveUID), deleted), Terminating, "being deleted"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			// An older claimant has no say while the Secret exists.
			older := "elder"
			if test.existing == nil {
				older = ""
			}
			got := Settle(shop(), test.existing, neighbourhood{older: older})
			if got.Claim != test.want || !strings.Contains(got.Message, test.says) {
				t.Errorf("%s %q, want %s with %q", got.Claim, got.Message, test.want, test.says)
			}
			refused := test.want == Conflict || test.want == Terminating
			if got.Writable() == refused || refused == (got.Message == "") {
				t.Errorf("%s: writable %t, message %q", got.Claim, got.Writable(), got.Message)
			}
		})
	}
}

// A Secret with the key of a WeChatAppClient is nobody's target, whatever it consents to, unless it is the resource's own by its UID.
func TestSettleKeySecrets(t *testing.T) {
	kind := annotated(v1alpha1.AnnotationOwnerKind, "WeChatAppClient")
	client := metav1.OwnerReference{APIVersion: "wechat.apptoken.dev/v1alpha1", Kind: "WeChatAppClient", Name: "api", UID: "client"}
	for name, test := range map[string]struct {
		existing *metav1.PartialObjectMetadata
		want     Claim
	}{
		"a client's":                        {secret(holder("client"), kind), Conflict},
		"by reference alone":                {secret(referenceOf(client)), Conflict},
		"with consent":                      {secret(holder("client"), kind, adopt("shop")), Conflict},
		"consent, without its UID":          {secret(kind, adopt("shop")), Conflict},
		"kept by one of the same name":      {secret(left(v1alpha1.DeletionRetain, "shop", appID), kind), Conflict},
		"the resource's own, kind edited":   {secret(holder(ownUID), kind), Own},
		"own by reference, the rest edited": {secret(holder("client"), kind, reference(ownUID)), Own},
	} {
		got := Settle(shop(), test.existing, neighbourhood{})
		if got.Claim != test.want || got.Claim == Conflict && !strings.Contains(got.Message, "WeChatAppClient") {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestSettleBeforeThereIsASecret(t *testing.T) {
	if got := Settle(shop(), nil, neighbourhood{older: "elder"}); got.Claim != Conflict || !strings.Contains(got.Message, `"elder"`) {
		t.Errorf("an older resource wants it too: %+v", got)
	}
	// The API refuses it, but a resource may be older than the rule.
	for name, existing := range map[string]*metav1.PartialObjectMetadata{"none": nil, "ours": secret(holder(ownUID)), "consented": secret(adopt("shop"))} {
		token := shop()
		token.Spec.CredentialsSecretRef.Name = "shop-token"
		if got := Settle(token, existing, neighbourhood{}); got.Claim != Conflict || !strings.Contains(got.Message, "credentials") {
			t.Errorf("target is the credentials Secret (%s): %+v", name, got)
		}
		token.Name, token.Spec.Target.Name = "shop-token", ""
		if got := Settle(token, existing, neighbourhood{}); got.Claim != Conflict {
			t.Errorf("target by default is the credentials Secret (%s): %+v", name, got)
		}
	}
}
