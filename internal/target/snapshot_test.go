// SPDX-License-Identifier: Apache-2.0

package target

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/intern"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

func TestRead(t *testing.T) {
	key := types.NamespacedName{Namespace: "shop", Name: "shop-token"}
	store, api := newStore(t, http.StatusOK, liveSecret())
	got, err := store.Read(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	api.only(t, http.MethodGet, "/api/v1/namespaces/shop/secrets/shop-token")
	if got.Type != corev1.SecretTypeOpaque || got.Immutable || got.Meta.ResourceVersion != "43" || got.Meta.Annotations[v1alpha1.AnnotationOwnerUID] != ownUID {
		t.Errorf("%+v", got.Meta)
	}
	if got.Token("access_token").Reveal() != tokenText || !got.Token("other").IsZero() {
		t.Error("not the token of the Secret")
	}
	noToken(t, got.Meta)

	special := liveSecret()
	yes := true
	special.Type, special.Immutable = corev1.SecretTypeTLS, &yes
	store, _ = newStore(t, http.StatusOK, special)
	if got, err = store.Read(t.Context(), key); err != nil || got.Type != corev1.SecretTypeTLS || !got.Immutable {
		t.Errorf("type %s, immutable %t, %v", got.Type, got.Immutable, err)
	}
	store, _ = newStore(t, http.StatusNotFound, apierrors.NewNotFound(corev1.Resource("secrets"), "shop-token").Status())
	if _, err = store.Read(t.Context(), key); !apierrors.IsNotFound(err) {
		t.Errorf("%v, want not found", err)
	}
}

func TestHolds(t *testing.T) {
	fingerprint := token.NewValue(tokenText).Fingerprint()
	expiry := issuedAt.Add(2 * time.Hour)
	tests := map[string]struct {
		change                  func(data map[string][]byte)
		key, fingerprint, appID string
		expiresAt               time.Time
		want                    bool
	}{
		"as written":           {nil, "access_token", fingerprint, appID, expiry, true},
		"a fraction later":     {nil, "access_token", fingerprint, appID, expiry.Add(time.Second - 1), true},
		"another time zone":    {nil, "access_token", fingerprint, appID, expiry.In(time.FixedZone("CST", 8*3600)), true},
		"another token":        {nil, "access_token", "0000000000000000", appID, expiry, false},
		"another key":          {nil, "theirs", fingerprint, appID, expiry, false},
		"another appid":        {nil, "access_token", fingerprint, "wxfedcba9876543210", expiry, false},
		"another expiry":       {nil, "access_token", fingerprint, appID, expiry.Add(time.Second), false},
		"nothing known":        {nil, "access_token", "", appID, expiry, false},
		"nothing known, empty": {func(d map[string][]byte) { clear(d) }, "access_token", "", "", time.Time{}, false},
		"token edited":         {func(d map[string][]byte) { d["access_token"] = append(d["access_token"], '\n') }, "access_token", fingerprint, appID, expiry, false},
		"token gone":           {func(d map[string][]byte) { delete(d, "access_token") }, "access_token", fingerprint, appID, expiry, false},
		"expiry edited":        {func(d map[string][]byte) { d["expires_at"] = []byte("2026-03-01T22:00:00+08:00") }, "access_token", fingerprint, appID, expiry, false},
		"appid gone":           {func(d map[string][]byte) { delete(d, "app_id") }, "access_token", fingerprint, appID, expiry, false},
		"a foreign key more":   {func(d map[string][]byte) { d["more"] = nil }, "access_token", fingerprint, appID, expiry, true},
	}
	for name, test := range tests {
		data := liveSecret().Data
		if test.change != nil {
			test.change(data)
		}
		if got := (Snapshot{data: data}).Holds(test.key, test.fingerprint, test.appID, test.expiresAt); got != test.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestStrip(t *testing.T) {
	at := metav1.NewTime(issuedAt)
	const p = "wechat.apptoken.dev/"
	given := func(more ...edit) *metav1.PartialObjectMetadata {
		m := secret(labelled("team", "shop"), annotated("note", "x"), annotated(corev1.LastAppliedConfigAnnotation, tokenText),
			adopt("shop"), labelled(p+"credentials", "true"), referenceOf(foreignReference), reference(ownUID))
		m.CreationTimestamp, m.DeletionTimestamp = at, &at
		m.Generation, m.GenerateName, m.Finalizers = 7, "shop-", []string{"example.com/f"}
		m.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}
		m.TypeMeta = metav1.TypeMeta{} // lists do not repeat it
		for _, e := range more {
			e(m)
		}
		return m
	}
	want := func(labels, annotations map[string]string) *metav1.PartialObjectMetadata {
		return &metav1.PartialObjectMetadata{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "shop", Name: "shop-token", UID: "secret-uid", ResourceVersion: "42", CreationTimestamp: at, DeletionTimestamp: &at,
				OwnerReferences: given().OwnerReferences[1:], Labels: labels, Annotations: annotations,
			},
		}
	}
	credentials := map[string]string{p + "credentials": "true"}
	managed := map[string]string{p + "managed-by": "wechat-token-operator", p + "credentials": "true"}
	long := strings.Repeat("x", maxOthers)
	tests := map[string]struct{ in, want *metav1.PartialObjectMetadata }{
		"foreign": {given(), want(credentials, map[string]string{p + "adopt": "shop/" + appID})},
		"target by label": {given(labelled(p+"managed-by", "wechat-token-operator")),
			want(map[string]string{p + "managed-by": "wechat-token-operator", p + "credentials": "true", "team": "shop"}, map[string]string{p + "adopt": "shop/" + appID, "note": "x"})},
		"target by annotation": {given(holder(ownUID)),
			want(map[string]string{p + "credentials": "true", "team": "shop"}, map[string]string{p + "adopt": "shop/" + appID, p + "owner-uid": ownUID, "note": "x"})},
		"a key of the operator that it does not know": {given(annotated(p+"other", "x")), want(credentials, map[string]string{p + "adopt": "shop/" + appID})},
		"a target with more than there is room for": {given(labelled(p+"managed-by", "wechat-token-operator"), annotated("more", long)),
			want(managed, map[string]string{p + "adopt": "shop/" + appID, incompleteKey: ""})},
		"a value that is longer than the operator writes": {given(annotated(p+"token-fingerprint", long), annotated(p+"owner-name", long)),
			want(credentials, map[string]string{p + "adopt": "shop/" + appID})},
		// Nothing at all is kept of Secrets that are none of the operator's business.
		"bare": {
			&metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{"x": "y"}, Annotations: map[string]string{"x": "y"}}},
			&metav1.PartialObjectMetadata{TypeMeta: secretType(), ObjectMeta: metav1.ObjectMeta{Name: "a"}},
		},
	}
	for name, test := range tests {
		before := test.in.DeepCopy()
		got := NewStripper(nil).Strip(test.in)
		if !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s:\n%+v, want\n%+v", name, got, test.want)
		}
		if shared := NewStripper(&intern.Pool{}).Strip(test.in); !reflect.DeepEqual(shared, got) {
			t.Errorf("%s: with shared strings:\n%+v, want\n%+v", name, shared, got)
		}
		if _, cut := test.want.Annotations[incompleteKey]; Incomplete(got) != cut {
			t.Errorf("%s: incomplete is %t", name, !cut)
		}
		if !reflect.DeepEqual(test.in, before) {
			t.Errorf("%s: the original was changed", name)
		}
		noToken(t, got)
	}
}

// Whatever a Secret holds, little is kept of it: anybody who may create Secrets could fill the operator's memory otherwise.
func TestStripIsBounded(t *testing.T) {
	huge := strings.Repeat("x", 200_000)
	annotate := func(m *metav1.PartialObjectMetadata, v func(longest int) string) {
		keys := slices.Collect(maps.Keys(maps.Collect((Record{}).Encode())))
		for _, key := range append(keys, v1alpha1.LabelManagedBy, v1alpha1.AnnotationAdopt) {
			m.Annotations[key], m.Labels[key] = v(longest(key)), v(longest(key))
		}
	}
	for name, edit := range map[string]func(*metav1.PartialObjectMetadata){
		"many labels": func(m *metav1.PartialObjectMetadata) {
			for i := range 9000 {
				m.Labels[fmt.Sprint("label-", i)] = "x"
			}
		},
		"many keys of the operator": func(m *metav1.PartialObjectMetadata) {
			for i := range 9000 {
				m.Annotations[fmt.Sprint(v1alpha1.AnnotationPrefix, i)] = "x"
			}
		},
		"long values": func(m *metav1.PartialObjectMetadata) {
			annotate(m, func(int) string { return huge })
		},
		"the longest values that are kept": func(m *metav1.PartialObjectMetadata) {
			annotate(m, func(longest int) string { return huge[:longest] })
		},
		"many references": func(m *metav1.PartialObjectMetadata) {
			for i := range 9000 {
				m.OwnerReferences = append(m.OwnerReferences, metav1.OwnerReference{
					APIVersion: v1alpha1.GroupName + "/" + huge, Kind: v1alpha1.Kind, Name: huge, UID: types.UID(fmt.Sprint(huge, i)),
				})
			}
		},
	} {
		m := secret(labelled(v1alpha1.LabelManagedBy, "x"), holder(ownUID))
		m.Name = huge[:maxName]
		edit(m)
		kept := NewStripper(nil).Strip(m)
		text, err := json.Marshal(kept)
		if err != nil {
			t.Fatal(err)
		}
		if len(text) > 4<<10 || len(kept.Labels)+len(kept.Annotations) > 64 {
			t.Errorf("%s: %d bytes are kept, %d labels and %d annotations", name, len(text), len(kept.Labels), len(kept.Annotations))
		}
	}
}

// A Secret costs the cache at most 4 KiB of live memory, whatever is in it: also where it has many keys without text.
func TestLiveMemoryOfTheWorstSecret(t *testing.T) {
	const count = 1000
	most := uint64(4 << 10)
	if underRace {
		most += 512
	}
	s := NewStripper(&intern.Pool{})
	text := func(n, seed int) string { return fmt.Sprintf("%0*d", n, seed) }
	worst := func(i, entries, size int, labels bool) *metav1.PartialObjectMetadata {
		m := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
			Namespace: "tenant", Name: text(maxName, i), UID: types.UID(text(36, i)), ResourceVersion: text(19, i),
			CreationTimestamp: metav1.Now(), DeletionTimestamp: new(metav1.Now()), Labels: map[string]string{}, Annotations: map[string]string{},
		}}
		keys := slices.Collect(maps.Keys(maps.Collect((Record{}).Encode())))
		for _, key := range append(keys, v1alpha1.LabelManagedBy, v1alpha1.AnnotationAdopt) {
			if key = strings.Clone(key); key != v1alpha1.AnnotationAppliedMetadata {
				m.Annotations[key], m.Labels[key] = text(longest(key), i), text(min(63, longest(key)), i) // a label has no longer one
			}
		}
		for n := range entries {
			others := m.Annotations
			if labels {
				others = m.Labels
			}
			others[strings.Clone(string(rune('A'+n)))] = text(size, i)[:size]
		}
		for n := range maxReferences + 1 {
			m.OwnerReferences = append(m.OwnerReferences, metav1.OwnerReference{
				APIVersion: v1alpha1.GroupName + "/" + text(300, i), Kind: v1alpha1.Kind, Name: text(300, i), UID: types.UID(text(300, i*10+n)),
				Controller: new(true),
			})
		}
		return m
	}
	live := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for _, others := range []struct{ entries, size int }{{0, 0}, {6, 52}, {10, 18}, {15, 1}, {250, 0}} {
		for _, labels := range []bool{true, false} {
			kept := make([]*metav1.PartialObjectMetadata, count)
			before := live()
			for i := range kept {
				kept[i] = s.Strip(worst(i, others.entries, others.size, labels))
			}
			if each := (live() - before) / count; each > most {
				t.Errorf("a Secret with %d other entries of %d bytes costs %d bytes", others.entries, others.size, each)
			}
			runtime.KeepAlive(kept)
		}
	}
}

// What targets have in common is in memory once.
func TestStripperShares(t *testing.T) {
	s := NewStripper(&intern.Pool{})
	strip := func() *metav1.PartialObjectMetadata {
		decoded := func(text string) string { return strings.Clone(text) } // as each object of a list has its own
		m := secret(labelled(decoded(v1alpha1.LabelManagedBy), decoded(v1alpha1.ManagedByValue)),
			annotated(decoded(v1alpha1.AnnotationMode), decoded("Stable")), holder(ownUID), reference(ownUID))
		m.Namespace = decoded(m.Namespace)
		return s.Strip(m)
	}
	a, b := strip(), strip()
	if reflect.ValueOf(a.Labels).Pointer() != reflect.ValueOf(b.Labels).Pointer() {
		t.Error("two maps of the same labels")
	}
	same := func(what, x, y string) {
		t.Helper()
		if unsafe.StringData(x) != unsafe.StringData(y) {
			t.Errorf("two copies of %s", what)
		}
	}
	key := func(m *metav1.PartialObjectMetadata) string {
		for k := range m.Annotations {
			if k == v1alpha1.AnnotationMode {
				return k
			}
		}
		return ""
	}
	same("the namespace", a.Namespace, b.Namespace)
	same("a key", key(a), key(b))
	same("a value", a.Annotations[v1alpha1.AnnotationMode], b.Annotations[v1alpha1.AnnotationMode])
	same("a kind", a.OwnerReferences[0].Kind, b.OwnerReferences[0].Kind)
	same("the owner's UID", string(a.OwnerReferences[0].UID), a.Annotations[v1alpha1.AnnotationOwnerUID])
}
