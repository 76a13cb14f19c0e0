// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"fmt"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// malice shares the accounts of the first namespace with a second one, which is older and feeds its neighbours lies.
func (w *world) malice() {
	w.operate(1, false, plan{})
	var liars []*targetRef
	for i := range 8 {
		mode := v1alpha1.ModeStable
		if i%2 == 1 {
			mode = v1alpha1.ModeLegacy
			w.wechat.SetApp(wechattest.App{ID: w.appID(i), Life: legacyLife})
		}
		liars = append(liars, w.addToken(w.namespaces[1], i, fmt.Sprintf("t%03d", i), mode))
	}
	w.ready(liars...)
	w.mu.Lock()
	w.targets = nil // what they do to themselves is not judged
	w.mu.Unlock()
	for i, liar := range liars {
		w.addToken(w.namespaces[0], i, liar.name.Name, v1alpha1.Mode(liar.mode))
	}
	w.ready(w.targets...)
	for i := 0; w.sleep(w.between(500*time.Millisecond, 3*time.Second)); i++ {
		if i%8 == 7 && i < 100 {
			w.comeLate(liars[1+2*(i/8%4)], i)
		}
		liar := liars[w.rng.IntN(len(liars))]
		if w.rng.IntN(8) > 0 {
			w.lie(liar, liars)
			continue
		}
		for range 40 { // as fast as it can, to use up the calls of the day
			w.lie(liar, liars)
			w.sleep(100 * time.Millisecond)
		}
	}
}

// comeLate makes a member of the liar's Legacy account. It may copy a token from an older member, and so must never take a lie for one.
func (w *world) comeLate(liar *targetRef, i int) {
	w.must(client.IgnoreNotFound(w.merge(liar.name, object{"data": object{tokenKey: encoded("a lie")}})))
	ref := w.addToken(w.namespaces[0], liar.account, fmt.Sprintf("late%03d", i), v1alpha1.ModeLegacy)
	if !w.ready(ref) && w.ctx.Err() == nil {
		w.Errorf("%s has no token", ref.name)
	}
	for _, v := range watching.history(ref.name) {
		if !slices.ContainsFunc(w.wechat.Tokens(ref.appID), func(t wechattest.IssuedToken) bool { return t.Token == v.token }) {
			w.Errorf("%s was fed %q", ref.name, v.token)
		}
	}
}

// lie forges a target, or deletes it.
func (w *world) lie(ref *targetRef, all []*targetRef) {
	other, _ := w.held(all[w.rng.IntN(len(all))])
	lies := append(forgedAnnotations(), object{"data": nil, "metadata": object{"annotations": nil, "labels": nil}},
		object{"data": object{tokenKey: encoded(other.token)}}, object{"data": object{tokenKey: encoded("a lie")}},
		w.wholeLie(ref, other.token), w.wholeLie(ref, "a-lie-in-good-order"))
	if n := w.rng.IntN(len(lies) + 1); n < len(lies) {
		w.must(client.IgnoreNotFound(w.merge(ref.name, lies[n])))
		return
	}
	w.must(client.IgnoreNotFound(w.Delete(w.ctx, secretNamed(ref.name))))
}

// forgedAnnotations are lies about what the operator keeps there: marks, owners, fingerprints, times, requests.
func forgedAnnotations() (lies []object) {
	now := time.Now().UTC()
	mark := func(at time.Time) string { return at.Format(time.RFC3339Nano) + "/forged" }
	for _, lie := range [][2]string{
		{v1alpha1.AnnotationMintStarted, mark(now)},
		{v1alpha1.AnnotationMintStarted, mark(now.Add(-time.Hour))},
		{v1alpha1.AnnotationMintStarted, mark(now.Add(time.Hour))},
		{v1alpha1.AnnotationOwnerUID, "11111111-2222-3333-4444-555555555555"},
		{v1alpha1.AnnotationOwnerName, "somebody-else"},
		{v1alpha1.AnnotationAdopt, "somebody-else"},
		{v1alpha1.AnnotationDeletionPolicy, "Retain"},
		{v1alpha1.AnnotationAppID, "wx0000000000000000"},
		{v1alpha1.AnnotationMode, "Legacy"},
		{v1alpha1.AnnotationTokenFingerprint, "0123456789abcdef"},
		{v1alpha1.AnnotationCredentialsFingerprint, "0123456789abcdef"},
		{v1alpha1.AnnotationExpiresAt, "2099-01-01T00:00:00Z"},
		{v1alpha1.AnnotationIssuedAt, "2099-01-01T00:00:00Z"},
		{v1alpha1.AnnotationPrefix + "handled-refresh", "forged"}, // older designs believed these two
		{v1alpha1.AnnotationPrefix + "revoke", now.Format(time.RFC3339) + "/0123456789abcdef/forged"},
	} {
		lies = append(lies, object{"metadata": object{"annotations": object{lie[0]: lie[1]}}})
	}
	return lies
}

// wholeLie is a token that data and annotations agree on: it looks as if another leader had written it just now.
func (w *world) wholeLie(ref *targetRef, tok string) object {
	issued := time.Now().UTC().Add(w.between(-time.Hour, 90*time.Minute))
	expires := time.Now().UTC().Add(2 * time.Hour).Format(time.RFC3339)
	return object{
		"data": object{
			tokenKey: encoded(tok), v1alpha1.ExpiresAtKey: encoded(expires), v1alpha1.AppIDKey: encoded(ref.appID),
		},
		"metadata": object{"annotations": object{
			v1alpha1.AnnotationTokenFingerprint: token.NewValue(tok).Fingerprint(),
			v1alpha1.AnnotationAppID:            ref.appID,
			v1alpha1.AnnotationMode:             string(ref.mode),
			v1alpha1.AnnotationIssuedAt:         issued.Format(time.RFC3339),
			v1alpha1.AnnotationExpiresAt:        expires,
		}},
	}
}
