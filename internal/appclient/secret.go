// SPDX-License-Identifier: Apache-2.0

package appclient

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// settings are the values of the Secret that are no keys.
type settings struct{ appID, host, ca string }

// digest stands for settings in what a process remembers of 10,000 clients, because bundles of certificates are large.
func (s settings) digest() [sha256.Size]byte {
	return sha256.Sum256([]byte(s.appID + "\x00" + s.host + "\x00" + s.ca))
}

// held is what a version of the Secret was found to hold, without a key. The zero value knows nothing; losing it costs a GET.
type held struct {
	uid     types.UID
	version string
	// current and previous are the fingerprints of its keys; empty for none, or for a value that is no key.
	current, previous string
	settings          [sha256.Size]byte
	// labelled reports that it has the operator's label, and annotations and references are the operator's own, cut to a bounded size.
	labelled    bool
	annotations map[string]string
	references  []metav1.OwnerReference
	// extra reports that there is a value in the place of the key before that is none.
	extra bool
}

func (h held) of(secret *metav1.PartialObjectMetadata) bool {
	return h.uid == secret.UID && h.version == secret.ResourceVersion
}

// same reports whether another version holds the same, as far as that is known.
func (h held) same(as held) bool {
	h.uid, h.version = as.uid, as.version
	return reflect.DeepEqual(h, as)
}

// snapshot is a Secret as the API server has it now, with its keys. It lives for one pass.
type snapshot struct {
	held

	meta       *metav1.PartialObjectMetadata
	secretType corev1.SecretType
	keys       [2]token.Value
}

// key returns the key with this fingerprint, and whether the Secret holds it.
func (s *snapshot) key(fingerprint string) (token.Value, bool) {
	for _, k := range s.keys {
		if fingerprint != "" && k.Fingerprint() == fingerprint {
			return k, true
		}
	}
	return token.Value{}, false
}

func (p *pass) readSnapshot(ctx context.Context) (*snapshot, error) {
	secret, name := &corev1.Secret{}, p.secretName()
	if err := p.Live.Get(ctx, name, secret); err != nil {
		return nil, fmt.Errorf("reading Secret %s: %w", name, err)
	}
	current, previous := parseKey(secret.Data[v1alpha1.AppSecretKey]), parseKey(secret.Data[v1alpha1.PreviousAppSecretKey])
	at := func(key string) string { return string(secret.Data[key]) }
	_, hasPrevious := secret.Data[v1alpha1.PreviousAppSecretKey]
	s := &snapshot{
		held: held{
			current: current.Fingerprint(), previous: previous.Fingerprint(), extra: hasPrevious && previous.IsZero(),
			settings: settings{at(v1alpha1.AppIDKey), at(v1alpha1.HostKey), at(v1alpha1.CAKey)}.digest(),
		},
		meta: target.MetadataOf(secret.ObjectMeta), secretType: secret.Type, keys: [2]token.Value{current, previous},
	}
	s.held = s.with(s.meta)
	return s, nil
}

const (
	// longestValue is the length of the longest annotation that the operator writes, the name of a WeChatAppClient, and longestUID that of
	// a UID. Others can write more, of which nothing is kept but that it differs.
	longestValue, longestUID = 253, 36
	// maxReferences is the number of owner references that are kept: a second one is one too many, whatever follows.
	maxReferences = 2
)

// with returns the same with the metadata of another version.
func (h held) with(meta *metav1.PartialObjectMetadata) held {
	h.uid, h.version = meta.UID, meta.ResourceVersion
	h.labelled = meta.Labels[v1alpha1.LabelManagedBy] == v1alpha1.ManagedByValue
	h.annotations, h.references = map[string]string{}, nil
	for key := range annotations(target.Record{}) {
		if v, found := meta.Annotations[key]; found {
			h.annotations[key] = target.Clip(v, longestValue)
		}
	}
	for _, ref := range meta.OwnerReferences {
		uid := types.UID(target.Clip(string(ref.UID), longestUID))
		isKept := slices.ContainsFunc(h.references, func(kept metav1.OwnerReference) bool { return kept.UID == uid })
		if target.IsReferenceTo(ref, v1alpha1.ClientKind) && !isKept && len(h.references) < maxReferences {
			h.references = append(h.references,
				metav1.OwnerReference{APIVersion: v1alpha1.GroupVersion.String(), Kind: v1alpha1.ClientKind, UID: uid})
		}
	}
	return h
}

// annotations returns those of a key Secret with this record. A key with an empty value is to be absent.
func annotations(r target.Record) map[string]string {
	out := map[string]string{v1alpha1.AnnotationOwnerKind: v1alpha1.ClientKind}
	maps.Insert(out, r.Encode())
	return out
}

// content is what a write puts into a Secret. A zero key leaves the one that is there.
type content struct {
	current token.Value
	// previous is the key before; dropPrevious removes it.
	previous     token.Value
	dropPrevious bool
	settings     settings
	record       target.Record
	// reference is the owner reference; nil for none.
	reference *metav1.OwnerReference
}

func (c content) data() map[string][]byte {
	data := map[string][]byte{v1alpha1.AppIDKey: []byte(c.settings.appID), v1alpha1.HostKey: []byte(c.settings.host)}
	if data[v1alpha1.CAKey] = nil; c.settings.ca != "" {
		data[v1alpha1.CAKey] = []byte(c.settings.ca)
	}
	if !c.current.IsZero() {
		data[v1alpha1.AppSecretKey] = []byte(c.current.Reveal())
	}
	switch {
	case !c.previous.IsZero():
		data[v1alpha1.PreviousAppSecretKey] = []byte(c.previous.Reveal())
	case c.dropPrevious:
		data[v1alpha1.PreviousAppSecretKey] = nil // null in a patch
	}
	return data
}

// create creates the Secret. It is a POST, so it cannot overwrite one.
func (p *pass) create(ctx context.Context, c content) (*metav1.PartialObjectMetadata, error) {
	name := p.secretName()
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: name.Namespace, Name: name.Name,
			Labels:      map[string]string{v1alpha1.LabelManagedBy: v1alpha1.ManagedByValue},
			Annotations: map[string]string{},
		},
		Type: corev1.SecretTypeOpaque,
		Data: c.data(),
	}
	for key, v := range secret.Data {
		if v == nil {
			delete(secret.Data, key)
		}
	}
	for key, v := range annotations(c.record) {
		if v != "" {
			secret.Annotations[key] = v
		}
	}
	if c.reference != nil {
		secret.OwnerReferences = []metav1.OwnerReference{*c.reference}
	}
	if err := p.Client.Create(ctx, secret, client.FieldOwner(target.FieldManager)); err != nil {
		return nil, fmt.Errorf("creating Secret %s: %w", name, err)
	}
	return target.MetadataOf(secret.ObjectMeta), nil
}

// update writes the content into a Secret, but no owner reference, which some clusters let only accounts change that may delete Secrets.
func (p *pass) update(ctx context.Context, existing *metav1.PartialObjectMetadata, c content) (*metav1.PartialObjectMetadata, error) {
	set := map[string]any{}
	for key, v := range annotations(c.record) {
		if set[key] = v; v == "" {
			set[key] = nil
		}
	}
	return p.store.Patch(ctx, existing, map[string]any{
		"data": c.data(),
		"metadata": map[string]any{
			"labels": map[string]any{v1alpha1.LabelManagedBy: v1alpha1.ManagedByValue}, "annotations": set,
		},
	})
}
