// SPDX-License-Identifier: Apache-2.0

package target

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/account"
	"github.com/wechat-token-operator/wechat-token-operator/internal/failpoint"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// FieldManager names the operator in managedFields.
const FieldManager = "wechat-token-operator"

// Store reads and writes target Secrets. Writes never read first: they carry the UID and resourceVersion that the informer knows.
// The answer to an update is metadata alone; the answer to a creation is the whole Secret, of which only the metadata is kept.
type Store struct {
	// Client writes. Live reads from the API server, never from a cache.
	Client client.Client
	Live   client.Reader
}

// Content is the data of a target Secret: a token, tickets, or both.
type Content struct {
	AccessTokenKey string
	// Token is zero if the Secret keeps the one that it has.
	Token     token.Value
	ExpiresAt time.Time
	AppID     string
	Tickets   []TicketContent
}

func (c Content) data() map[string][]byte {
	data := map[string][]byte{}
	if !c.Token.IsZero() {
		data[c.AccessTokenKey] = []byte(c.Token.Reveal())
		data[v1alpha1.ExpiresAtKey] = []byte(FormatTime(c.ExpiresAt))
		data[v1alpha1.AppIDKey] = []byte(c.AppID)
	}
	for _, t := range c.Tickets {
		if !t.Value.IsZero() {
			data[t.Key] = []byte(t.Value.Reveal())
		}
		data[t.ExpiresAtKey] = []byte(FormatTime(t.ExpiresAt))
	}
	return data
}

// Snapshot is a target Secret as the API server has it now.
type Snapshot struct {
	Meta      *metav1.PartialObjectMetadata
	Type      corev1.SecretType
	Immutable bool
	data      map[string][]byte
}

// Token returns the token or the ticket under the given key; zero if there is none.
func (s Snapshot) Token(key string) token.Value { return token.NewValue(string(s.data[key])) }

// Holds reports whether the data is what the operator writes for a token with this fingerprint.
func (s Snapshot) Holds(key, fingerprint, appID string, expiresAt time.Time) bool {
	return fingerprint != "" && s.Token(key).Fingerprint() == fingerprint &&
		string(s.data[v1alpha1.AppIDKey]) == appID && string(s.data[v1alpha1.ExpiresAtKey]) == FormatTime(expiresAt)
}

// Read returns the Secret as the API server has it.
func (s Store) Read(ctx context.Context, key types.NamespacedName) (Snapshot, error) {
	secret := &corev1.Secret{}
	if err := s.Live.Get(ctx, key, secret); err != nil {
		return Snapshot{}, fmt.Errorf("reading target Secret %s: %w", key, err)
	}
	return Snapshot{
		Meta:      MetadataOf(secret.ObjectMeta),
		Type:      secret.Type,
		Immutable: secret.Immutable != nil && *secret.Immutable,
		data:      secret.Data,
	}, nil
}

// Create creates the Secret. It is a POST, so it cannot overwrite one.
func (s Store) Create(
	ctx context.Context, owner *v1alpha1.WeChatAppToken, d Desired, c Content, opts ...client.CreateOption,
) (*metav1.PartialObjectMetadata, error) {
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:   owner.Namespace,
			Name:        owner.TargetName(),
			Labels:      d.labels.set,
			Annotations: d.annotations.set,
		},
		Type: corev1.SecretTypeOpaque,
		Data: c.data(),
	}
	if d.reference != nil {
		secret.OwnerReferences = []metav1.OwnerReference{*d.reference}
	}
	opts = append(opts, client.FieldOwner(FieldManager))
	if err := s.Client.Create(ctx, secret, opts...); err != nil {
		return nil, fmt.Errorf("creating target Secret %s/%s: %w", secret.Namespace, secret.Name, err)
	}
	return MetadataOf(secret.ObjectMeta), nil
}

// Update writes labels, annotations and, unless it is nil, the data, and removes tickets that the spec dropped. It fails with a conflict
// when the Secret is not the one that existing describes. Owner references are left alone: some clusters allow only accounts that may
// delete Secrets to change them, and no token may wait for that.
func (s Store) Update(
	ctx context.Context, existing *metav1.PartialObjectMetadata, d Desired, c *Content, opts ...client.PatchOption,
) (*metav1.PartialObjectMetadata, error) {
	body := map[string]any{"metadata": map[string]any{"labels": d.labels.patch(), "annotations": d.annotations.patch()}}
	data := map[string][]byte{}
	if c != nil {
		data = c.data()
	}
	for _, key := range d.dropData {
		data[key] = nil // null in the patch
	}
	if len(data) > 0 {
		body["data"] = data
	}
	return s.Patch(ctx, existing, body, opts...)
}

// UpdateReferences sets or removes the operator's owner reference. A patch replaces the whole list, and the cache does not have the
// references of others, so the Secret is read first. The write fails with a conflict if that one is another version than existing.
func (s Store) UpdateReferences(
	ctx context.Context, existing *metav1.PartialObjectMetadata, d Desired,
) (*metav1.PartialObjectMetadata, error) {
	name := types.NamespacedName{Namespace: existing.Namespace, Name: existing.Name}
	latest := &metav1.PartialObjectMetadata{TypeMeta: secretType()}
	if err := s.Live.Get(ctx, name, latest); err != nil {
		return nil, fmt.Errorf("reading the owner references of target Secret %s: %w", name, err)
	}
	references, _ := References(latest.OwnerReferences, d.reference, v1alpha1.Kind)
	return s.Patch(ctx, existing, map[string]any{"metadata": map[string]any{"ownerReferences": references}})
}

// Mark writes that a Legacy mint begins. Only one process can do so for a given resourceVersion. Like every write it sets the
// operator's label, by which config/admission-policy recognizes the operator's Secrets.
func (s Store) Mark(
	ctx context.Context, existing *metav1.PartialObjectMetadata, mark account.Mark,
) (*metav1.PartialObjectMetadata, error) {
	return s.Patch(ctx, existing, map[string]any{"metadata": map[string]any{
		"labels":      map[string]any{v1alpha1.LabelManagedBy: v1alpha1.ManagedByValue},
		"annotations": map[string]any{v1alpha1.AnnotationMintStarted: encodeMark(mark)}}})
}

// Patch sends a JSON merge patch of a Secret. It fails with a conflict when the Secret is not the one that existing describes.
func (s Store) Patch(
	ctx context.Context, existing *metav1.PartialObjectMetadata, body map[string]any, opts ...client.PatchOption,
) (*metav1.PartialObjectMetadata, error) {
	metadata, ok := body["metadata"].(map[string]any)
	if !ok {
		metadata = map[string]any{}
		body["metadata"] = metadata
	}
	metadata["uid"], metadata["resourceVersion"] = existing.UID, existing.ResourceVersion
	if failpoint.Off(failpoint.Precondition) {
		delete(metadata, "resourceVersion")
	}
	raw, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encoding the patch of target Secret %s/%s: %w", existing.Namespace, existing.Name, err)
	}
	out := &metav1.PartialObjectMetadata{
		TypeMeta:   secretType(),
		ObjectMeta: metav1.ObjectMeta{Namespace: existing.Namespace, Name: existing.Name},
	}
	opts = append(opts, client.FieldOwner(FieldManager))
	if err := s.Client.Patch(ctx, out, client.RawPatch(types.MergePatchType, raw), opts...); err != nil {
		return nil, fmt.Errorf("updating target Secret %s/%s: %w", existing.Namespace, existing.Name, err)
	}
	return MetadataOf(out.ObjectMeta), nil
}

// MetadataOf returns the metadata of a Secret without what may contain its data.
func MetadataOf(meta metav1.ObjectMeta) *metav1.PartialObjectMetadata {
	meta.ManagedFields = nil
	delete(meta.Annotations, corev1.LastAppliedConfigAnnotation)
	return &metav1.PartialObjectMetadata{TypeMeta: secretType(), ObjectMeta: meta}
}

func secretType() metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}
}
