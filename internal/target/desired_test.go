// SPDX-License-Identifier: Apache-2.0

package target

import (
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/account"
)

var issuedAt = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// stored is what the annotations say of a token.
func stored() Record {
	return Record{
		AppID: appID, Mode: v1alpha1.ModeStable, IssuedAt: issuedAt, ExpiresAt: issuedAt.Add(2 * time.Hour),
		TokenFingerprint: "1f0c3a5b7d9e2468", CredentialsFingerprint: "9a8b7c6d5e4f3021",
	}
}

// storedIn is stored, with what the operator put into this Secret earlier; nil for none.
func storedIn(existing *metav1.PartialObjectMetadata) Record {
	r := stored()
	if existing != nil {
		r.Applied = DecodeRecord(existing.Annotations).Applied
	}
	return r
}

// written is the Secret after the operator wrote what it wants, on top of what was there.
func written(owner *v1alpha1.WeChatAppToken, before *metav1.PartialObjectMetadata, claim Claim, record Record) *metav1.PartialObjectMetadata {
	record.Applied = DecodeRecord(before.Annotations).Applied
	_, want := Want(owner, claim, record)
	out := before.DeepCopy()
	apply := func(have map[string]string, patch map[string]any) map[string]string {
		have = maps.Clone(have)
		if have == nil {
			have = map[string]string{}
		}
		for k, v := range patch {
			if s, ok := v.(string); ok {
				have[k] = s
			} else {
				delete(have, k)
			}
		}
		return have
	}
	out.Labels, out.Annotations = apply(out.Labels, want.labels.patch()), apply(out.Annotations, want.annotations.patch())
	out.OwnerReferences, _ = References(before.OwnerReferences, want.reference, v1alpha1.Kind)
	return out
}

func TestWantSettles(t *testing.T) {
	plain, rich := shop(), shop()
	rich.Spec.Target.Labels = map[string]v1alpha1.LabelValue{"team": "shop", "empty": ""}
	rich.Spec.Target.Annotations = map[string]v1alpha1.AnnotationValue{"reloader/match": "true", "empty": ""}
	kept := shop()
	kept.Spec.Target.DeletionPolicy = v1alpha1.DeletionRetain
	kubectl := shop() // of which the cache keeps nothing
	kubectl.Spec.Target.Annotations = map[string]v1alpha1.AnnotationValue{"kubectl.kubernetes.io/last-applied-configuration": "{}"}
	mark := stored()
	mark.Mint = account.Mark{StartedAt: issuedAt.Add(123456789), ID: "ABCDEFGH"}
	for name, owner := range map[string]*v1alpha1.WeChatAppToken{"plain": plain, "rich": rich, "Retain": kept, "kubectl": kubectl} {
		for _, claim := range []Claim{Own, Adopt, TakeOver} {
			for _, record := range []Record{stored(), mark} {
				before := secret(labelled("theirs", "1"), annotated("theirs", "2"))
				after := NewStripper(nil).Strip(written(owner, before, claim, record))
				// The next pass knows what the annotations say, and finds nothing to do.
				_, want := Want(owner, Own, DecodeRecord(after.Annotations))
				if want.Outdated(after) || want.ReferenceOutdated(after) {
					t.Errorf("%s, %s: outdated at once: %v %v", name, claim, after.Annotations, after.OwnerReferences)
				}
				if after.Labels["theirs"] != "1" || after.Annotations["theirs"] != "2" {
					t.Errorf("%s, %s: what others set is gone", name, claim)
				}
			}
		}
	}
}

func TestWantedMetadata(t *testing.T) {
	owner := shop()
	owner.Spec.Target.Labels = map[string]v1alpha1.LabelValue{"team": "shop", "stays": "1"}
	owner.Spec.Target.Annotations = map[string]v1alpha1.AnnotationValue{"note": "a", "more": "b"}
	first := written(owner, secret(labelled("theirs", "1"), annotated("theirs", "2")), Own, stored())
	wantLabels := map[string]string{"theirs": "1", "team": "shop", "stays": "1", "wechat.apptoken.dev/managed-by": "wechat-token-operator"}
	if !maps.Equal(first.Labels, wantLabels) {
		t.Errorf("labels %v", first.Labels)
	}
	const p = "wechat.apptoken.dev/"
	wantAnnotations := map[string]string{
		"theirs": "2", "note": "a", "more": "b",
		p + "owner-uid": ownUID, p + "owner-name": "shop", p + "deletion-policy": "Delete", p + "app-id": appID, p + "mode": "Stable",
		p + "issued-at": "2026-03-01T12:00:00Z", p + "expires-at": "2026-03-01T14:00:00Z",
		p + "token-fingerprint": "1f0c3a5b7d9e2468", p + "credentials-fingerprint": "9a8b7c6d5e4f3021",
		p + "applied-metadata": `{"labels":["stays","team"],"annotations":["more","note"]}`,
	}
	if !maps.Equal(first.Annotations, wantAnnotations) {
		t.Errorf("annotations %v", first.Annotations)
	}

	// What the spec drops goes, what it changes changes, and the rest stays.
	owner.Spec.Target.Labels = map[string]v1alpha1.LabelValue{"stays": "2"}
	owner.Spec.Target.Annotations = nil
	second := written(owner, first, Own, stored())
	delete(wantLabels, "team")
	wantLabels["stays"] = "2"
	if !maps.Equal(second.Labels, wantLabels) {
		t.Errorf("labels, after the spec dropped one: %v", second.Labels)
	}
	delete(wantAnnotations, "note")
	delete(wantAnnotations, "more")
	wantAnnotations[p+"applied-metadata"] = `{"labels":["stays"]}`
	if !maps.Equal(second.Annotations, wantAnnotations) {
		t.Errorf("annotations, after the spec dropped them: %v", second.Annotations)
	}

	// The list of what was applied is an annotation, too: it must not remove what the operator needs, and nonsense removes nothing.
	for _, list := range []string{`{"labels":["wechat.apptoken.dev/managed-by"],"annotations":["wechat.apptoken.dev/owner-uid","wechat.apptoken.dev/adopt"]}`, `{"labels":"team"}`, "{"} {
		hostile := second.DeepCopy()
		hostile.Annotations[p+"applied-metadata"] = list
		hostile.Annotations[p+"adopt"] = "shop"
		after := written(owner, hostile, Own, stored())
		if after.Labels[p+"managed-by"] == "" || after.Annotations[p+"owner-uid"] != ownUID || after.Annotations[p+"adopt"] != "shop" || after.Labels["theirs"] == "" {
			t.Errorf("%s removed %v %v", list, after.Labels, after.Annotations)
		}
	}
}

func TestOutdated(t *testing.T) {
	owner := shop()
	owner.Spec.Target.Labels = map[string]v1alpha1.LabelValue{"team": "shop", "empty": ""}
	good := written(owner, secret(), Own, stored())
	tests := map[string]struct {
		change edit
		want   bool
	}{
		"nothing":                  {func(*metav1.PartialObjectMetadata) {}, false},
		"a foreign label":          {labelled("theirs", "1"), false},
		"a foreign annotation":     {annotated("theirs", "1"), false},
		"consent":                  {adopt("shop"), false},
		"a label changed":          {labelled("team", "theirs"), true},
		"managed-by changed":       {labelled(v1alpha1.LabelManagedBy, "Helm"), true},
		"owner-uid changed":        {holder(deadUID), true},
		"expires-at changed":       {annotated(v1alpha1.AnnotationExpiresAt, "2027-01-01T00:00:00Z"), true},
		"a mark that nobody wants": {annotated(v1alpha1.AnnotationMintStarted, "2026-03-01T12:00:00Z/x"), true},
		"an empty value":           {annotated(v1alpha1.AnnotationMintStarted, ""), true},
		"a label gone":             {func(m *metav1.PartialObjectMetadata) { delete(m.Labels, "team") }, true},
		"an empty label gone":      {func(m *metav1.PartialObjectMetadata) { delete(m.Labels, "empty") }, true},
		"all annotations gone":     {func(m *metav1.PartialObjectMetadata) { m.Annotations = nil }, true},
		"a dropped label still there": {func(m *metav1.PartialObjectMetadata) {
			labelled("old", "1")(m)
			annotated(v1alpha1.AnnotationAppliedMetadata, `{"labels":["old"]}`)(m)
		}, true},
	}
	for name, test := range tests {
		existing := good.DeepCopy()
		test.change(existing)
		if _, want := Want(owner, Own, storedIn(existing)); want.Outdated(existing) != test.want {
			t.Errorf("%s: outdated %t", name, !test.want)
		}
	}
}

func TestReferences(t *testing.T) {
	remove, retain := shop(), shop()
	retain.Spec.Target.DeletionPolicy = v1alpha1.DeletionRetain
	yes := true
	ours := metav1.OwnerReference{APIVersion: "wechat.apptoken.dev/v1alpha1", Kind: "WeChatAppToken", Name: "shop", UID: ownUID, Controller: &yes}
	adopted := annotated(v1alpha1.AnnotationAppliedMetadata, `{"adopted":true}`)
	tests := map[string]struct {
		owner    *v1alpha1.WeChatAppToken
		existing *metav1.PartialObjectMetadata
		claim    Claim
		want     []metav1.OwnerReference
		outdated bool
	}{
		"created":                             {remove, nil, Create, []metav1.OwnerReference{ours}, true},
		"created, Retain":                     {retain, nil, Create, nil, false},
		"ours":                                {remove, secret(referenceOf(ours)), Own, []metav1.OwnerReference{ours}, false},
		"missing":                             {remove, secret(), Own, []metav1.OwnerReference{ours}, true},
		"Retain now":                          {retain, secret(referenceOf(foreignReference), referenceOf(ours)), Own, []metav1.OwnerReference{foreignReference}, true},
		"Retain":                              {retain, secret(referenceOf(foreignReference)), Own, []metav1.OwnerReference{foreignReference}, false},
		"Delete now":                          {remove, secret(referenceOf(foreignReference)), Own, []metav1.OwnerReference{foreignReference, ours}, true},
		"of a predecessor":                    {remove, secret(reference(deadUID), referenceOf(foreignReference)), Own, []metav1.OwnerReference{foreignReference, ours}, true},
		"of a predecessor alone":              {remove, secret(reference(deadUID)), Own, []metav1.OwnerReference{ours}, true},
		"of a predecessor, Retain":            {retain, secret(reference(deadUID)), Own, nil, true},
		"taken over":                          {remove, secret(left(v1alpha1.DeletionRetain, "shop", appID)), TakeOver, []metav1.OwnerReference{ours}, true},
		"adopted":                             {remove, secret(adopt("shop")), Adopt, nil, false},
		"adopted, foreign reference":          {remove, secret(adopt("shop"), referenceOf(foreignReference)), Adopt, []metav1.OwnerReference{foreignReference}, false},
		"adopted long ago":                    {remove, secret(holder(ownUID), adopted), Own, nil, false},
		"adopted long ago, reference by hand": {remove, secret(holder(ownUID), adopted, referenceOf(ours)), Own, nil, true},
		// Its owner never gave it away, so the successor must not have it deleted either.
		"adopted by a predecessor": {remove, secret(left(v1alpha1.DeletionRetain, "shop", appID), adopted), TakeOver, nil, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			record, want := Want(test.owner, test.claim, storedIn(test.existing))
			existing := test.existing
			if existing == nil {
				existing = secret()
			}
			if got, _ := References(existing.OwnerReferences, want.reference, v1alpha1.Kind); !reflect.DeepEqual(got, test.want) {
				t.Errorf("references %v, want %v", got, test.want)
			}
			if want.ReferenceOutdated(existing) != test.outdated {
				t.Errorf("outdated %t", !test.outdated)
			}
			has := slices.ContainsFunc(test.want, func(r metav1.OwnerReference) bool { return r.UID == ownUID })
			if policy := record.DeletionPolicy; (policy == v1alpha1.DeletionDelete) != has {
				t.Errorf("deletion policy %s, reference %t", policy, has)
			}
			if record.OwnerUID != ownUID || record.OwnerName != "shop" || record.TokenFingerprint != stored().TokenFingerprint {
				t.Errorf("record %+v", record)
			}
		})
	}
}
