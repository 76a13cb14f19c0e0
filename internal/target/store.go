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
	"github.com/wechat-token-operator/wechat-token-operator/internal/failpoint"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat"
)

// FieldManager names the operator in managedFields.
const FieldManager = "wechat-token-operator"

// Store reads and writes target Secrets. No write reads the Secret first: an update carries the UID and resourceVersion that the
// informer knows, and its answer is metadata only.
type Store struct {
	// Client writes. Live reads from the API server, never from a cache.
	Client client.Client
	Live   client.Reader
}

// Content is the data of a target Secret.
type Content struct {
	AccessTokenKey string
	Token          wechat.Secret
	ExpiresAt      time.Time
	AppID          string
}

func (c Content) data() map[string][]byte {
	return map[string][]byte{
		c.AccessTokenKey:      []byte(c.Token.Reveal()),
		v1alpha1.ExpiresAtKey: []byte(FormatTime(c.ExpiresAt)),
		v1alpha1.AppIDKey:     []byte(c.AppID),
	}
}

// Snapshot is a target Secret as the API server has it now.
type Snapshot struct {
	Meta      *metav1.PartialObjectMetadata
	Type      corev1.SecretType
	Immutable bool
	data      map[string][]byte
}

// Token under the given key; zero if there is none.
func (s Snapshot) Token(key string) wechat.Secret { return wechat.NewSecret(string(s.data[key])) }

// Holds tells whether the data is what the operator wrote for a token of this fingerprint.
func (s Snapshot) Holds(key, fingerprint, appID string, expiresAt time.Time) bool {
	return fingerprint != "" && s.Token(key).Fingerprint() == fingerprint &&
		string(s.data[v1alpha1.AppIDKey]) == appID && string(s.data[v1alpha1.ExpiresAtKey]) == FormatTime(expiresAt)
}

// Read gets the Secret from the API server.
func (s Store) Read(ctx context.Context, key types.NamespacedName) (Snapshot, error) {
	secret := &corev1.Secret{}
	if err := s.Live.Get(ctx, key, secret); err != nil {
		return Snapshot{}, fmt.Errorf("reading target Secret %s: %w", key, err)
	}
	return Snapshot{
		Meta:      StripMetadata(&metav1.PartialObjectMetadata{TypeMeta: secretType(), ObjectMeta: secret.ObjectMeta}),
		Type:      secret.Type,
		Immutable: secret.Immutable != nil && *secret.Immutable,
		data:      secret.Data,
	}, nil
}

// Create creates the Secret and returns its metadata. It is a POST, so it cannot overwrite a Secret. The API server answers it with
// the whole Secret, whose data is dropped here.
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
	return StripMetadata(&metav1.PartialObjectMetadata{TypeMeta: secretType(), ObjectMeta: secret.ObjectMeta}), nil
}

// Update writes labels, annotations and, unless nil, the data. It fails with a conflict when the Secret is not
// the one that existing describes. Owner references are left alone: some clusters let only accounts that may delete
// Secrets change them, and no token may wait for that.
func (s Store) Update(
	ctx context.Context, existing *metav1.PartialObjectMetadata, d Desired, c *Content, opts ...client.PatchOption,
) (*metav1.PartialObjectMetadata, error) {
	body := map[string]any{"metadata": map[string]any{"labels": d.labels.patch(), "annotations": d.annotations.patch()}}
	if c != nil {
		body["data"] = c.data()
	}
	return s.patch(ctx, existing, body, opts...)
}

// UpdateReferences sets or removes the operator's owner reference.
func (s Store) UpdateReferences(
	ctx context.Context, existing *metav1.PartialObjectMetadata, d Desired,
) (*metav1.PartialObjectMetadata, error) {
	return s.patch(ctx, existing, map[string]any{"metadata": map[string]any{"ownerReferences": d.references(existing)}})
}

// Mark writes that a Legacy mint begins. Only one process can do so for a given resourceVersion. Like all writes it leaves
// the operator's label, by which config/admission-policy knows them.
func (s Store) Mark(ctx context.Context, existing *metav1.PartialObjectMetadata, mint Mint) (*metav1.PartialObjectMetadata, error) {
	return s.patch(ctx, existing, map[string]any{"metadata": map[string]any{
		"labels":      map[string]any{v1alpha1.LabelManagedBy: v1alpha1.ManagedByValue},
		"annotations": map[string]any{v1alpha1.AnnotationMintStarted: mint.Encode()}}})
}

func (s Store) patch(
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
	return StripMetadata(out), nil
}

func secretType() metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}
}
