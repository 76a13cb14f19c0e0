// SPDX-License-Identifier: Apache-2.0

package target

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/account"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

const tokenText = "86_token-that-nobody-may-see"

// request is what the API server received.
type request struct {
	method, path, query, contentType, accept string
	body                                     map[string]any
}

// apiServer records requests and always gives the same answer.
type apiServer struct {
	requests []request
	status   int
	answer   any
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	raw, _ := io.ReadAll(r.Body)
	got := request{r.Method, r.URL.Path, r.URL.RawQuery, r.Header.Get("Content-Type"), r.Header.Get("Accept"), nil}
	if err := json.Unmarshal(raw, &got.body); err != nil && len(raw) > 0 {
		got.body = map[string]any{"not JSON": string(raw)}
	}
	s.requests = append(s.requests, got)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(s.status)
	_ = json.NewEncoder(w).Encode(s.answer)
}

// liveSecret is the Secret as the API server has it, with a token and a foreign key.
func liveSecret() *corev1.Secret {
	return &corev1.Secret{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "shop-token", UID: "secret-uid", ResourceVersion: "43",
			Annotations: map[string]string{v1alpha1.AnnotationOwnerUID: ownUID, corev1.LastAppliedConfigAnnotation: tokenText},
		},
		Type: corev1.SecretTypeOpaque,
		Data: map[string][]byte{
			"access_token": []byte(tokenText), "expires_at": []byte("2026-03-01T14:00:00Z"), "app_id": []byte(appID), "theirs": []byte("1"),
		},
	}
}

func newStore(t *testing.T, status int, answer any) (Store, *apiServer) {
	t.Helper()
	api := &apiServer{status: status, answer: answer}
	server := httptest.NewServer(api)
	t.Cleanup(server.Close)
	mapper := apimeta.NewDefaultRESTMapper(nil)
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Secret"), apimeta.RESTScopeNamespace)
	c, err := client.New(&rest.Config{Host: server.URL, QPS: -1, ContentConfig: rest.ContentConfig{ContentType: "application/json"}},
		client.Options{Scheme: clientgoscheme.Scheme, Mapper: mapper})
	if err != nil {
		t.Fatal(err)
	}
	return Store{Client: c, Live: c}, api
}

func content() Content {
	return Content{AccessTokenKey: "access_token", Token: token.NewValue(tokenText), ExpiresAt: issuedAt.Add(2 * time.Hour), AppID: appID}
}

func base64Of(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// wantData is the data of content in JSON.
func wantData() map[string]any {
	return map[string]any{"access_token": base64Of(tokenText), "expires_at": base64Of("2026-03-01T14:00:00Z"), "app_id": base64Of(appID)}
}

// only gives the one request that there was.
func (s *apiServer) only(t *testing.T, method, path string) request {
	t.Helper()
	if len(s.requests) != 1 {
		t.Fatalf("%d requests, want one: %v", len(s.requests), s.requests)
	}
	r := s.requests[0]
	if r.method != method || r.path != path {
		t.Errorf("%s %s, want %s %s", r.method, r.path, method, path)
	}
	return r
}

// noToken fails if the value holds the token.
func noToken(t *testing.T, v any) {
	t.Helper()
	raw, err := json.Marshal(v)
	if text := fmt.Sprintf("%s %+v", raw, v); err != nil || strings.Contains(text, tokenText) || strings.Contains(text, base64Of(tokenText)) {
		t.Errorf("it holds the token: %s %v", text, err)
	}
}

func TestCreate(t *testing.T) {
	store, api := newStore(t, http.StatusCreated, liveSecret())
	owner := shop()
	owner.Spec.Target.Labels = map[string]v1alpha1.LabelValue{"team": "shop"}
	_, want := Want(owner, Create, stored())
	got, err := store.Create(t.Context(), owner, want, content(), client.DryRunAll)
	if err != nil {
		t.Fatal(err)
	}
	r := api.only(t, http.MethodPost, "/api/v1/namespaces/shop/secrets")
	if r.query != "dryRun=All&fieldManager=wechat-token-operator" {
		t.Errorf("query %s", r.query)
	}
	if r.body["type"] != "Opaque" || !reflect.DeepEqual(r.body["data"], wantData()) {
		t.Errorf("type %v, data %v", r.body["type"], r.body["data"])
	}
	m, _ := r.body["metadata"].(map[string]any)
	if !reflect.DeepEqual(m["labels"], map[string]any{"team": "shop", v1alpha1.LabelManagedBy: "wechat-token-operator"}) || m["name"] != "shop-token" {
		t.Errorf("metadata %v", m)
	}
	annotations, _ := m["annotations"].(map[string]any)
	if annotations[v1alpha1.AnnotationOwnerUID] != ownUID || annotations[v1alpha1.AnnotationTokenFingerprint] != stored().TokenFingerprint {
		t.Errorf("annotations %v", annotations)
	}
	if _, found := annotations[v1alpha1.AnnotationMintStarted]; found {
		t.Error("an empty annotation is written")
	}
	if m["resourceVersion"] != nil || m["uid"] != nil {
		t.Errorf("a new Secret with %v %v", m["resourceVersion"], m["uid"])
	}
	references, _ := json.Marshal(m["ownerReferences"])
	if string(references) != `[{"apiVersion":"wechat.apptoken.dev/v1alpha1","controller":true,"kind":"WeChatAppToken","name":"shop","uid":"`+ownUID+`"}]` {
		t.Errorf("references %s", references)
	}
	if got.ResourceVersion != "43" || got.UID != "secret-uid" || got.Kind != "Secret" {
		t.Errorf("got %+v", got)
	}
	noToken(t, got)

	owner.Spec.Target.DeletionPolicy = v1alpha1.DeletionRetain
	_, want = Want(owner, Create, stored())
	if _, err := store.Create(t.Context(), owner, want, content()); err != nil {
		t.Fatal(err)
	}
	second := api.requests[1]
	if m, _ := second.body["metadata"].(map[string]any); m["ownerReferences"] != nil || second.query != "fieldManager=wechat-token-operator" {
		t.Errorf("Retain: %s %v", second.query, m)
	}
}

// Each write of a Secret that exists is one PATCH that cannot hit another Secret or another version, and asks for metadata.
func TestPatches(t *testing.T) {
	owner := shop()
	existing := secret(referenceOf(foreignReference), annotated(v1alpha1.AnnotationMintStarted, "2026-03-01T12:00:00Z/x"),
		annotated(v1alpha1.AnnotationAppliedMetadata, `{"labels":["old"]}`))
	_, want := Want(owner, Own, storedIn(existing))
	retain := shop()
	retain.Spec.Target.DeletionPolicy = v1alpha1.DeletionRetain
	_, keep := Want(retain, Own, stored())
	c := content()
	annotations := map[string]any{}
	for k, v := range stored().Encode() {
		annotations[k] = v
		if v == "" {
			annotations[k] = nil
		}
	}
	annotations[v1alpha1.AnnotationOwnerUID], annotations[v1alpha1.AnnotationOwnerName] = ownUID, "shop"
	annotations[v1alpha1.AnnotationDeletionPolicy] = "Delete"
	labels := map[string]any{v1alpha1.LabelManagedBy: "wechat-token-operator", "old": nil}
	ours := map[string]any{"apiVersion": "wechat.apptoken.dev/v1alpha1", "kind": "WeChatAppToken", "name": "shop", "uid": ownUID, "controller": true}
	theirs := map[string]any{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "web-uid"}
	tests := map[string]struct {
		write    func(context.Context, Store) (*metav1.PartialObjectMetadata, error)
		metadata map[string]any
		data     any
		query    string
		live     []metav1.OwnerReference // which a write of references reads first
	}{
		"labels only": {func(ctx context.Context, s Store) (*metav1.PartialObjectMetadata, error) {
			return s.Update(ctx, existing, want, nil)
		}, map[string]any{"labels": labels, "annotations": annotations}, nil, "", nil},
		"a new token": {func(ctx context.Context, s Store) (*metav1.PartialObjectMetadata, error) {
			return s.Update(ctx, existing, want, &c)
		}, map[string]any{"labels": labels, "annotations": annotations}, wantData(), "", nil},
		"a rehearsal": {func(ctx context.Context, s Store) (*metav1.PartialObjectMetadata, error) {
			return s.Update(ctx, existing, want, &c, client.DryRunAll)
		}, map[string]any{"labels": labels, "annotations": annotations}, wantData(), "dryRun=All&", nil},
		"a reference more": {func(ctx context.Context, s Store) (*metav1.PartialObjectMetadata, error) {
			return s.UpdateReferences(ctx, secret(), want)
		}, map[string]any{"ownerReferences": []any{theirs, ours}}, nil, "", secret(referenceOf(foreignReference)).OwnerReferences},
		"no reference": {func(ctx context.Context, s Store) (*metav1.PartialObjectMetadata, error) {
			return s.UpdateReferences(ctx, secret(), keep)
		}, map[string]any{"ownerReferences": nil}, nil, "", secret(reference(ownUID)).OwnerReferences},
		"a mark": {func(ctx context.Context, s Store) (*metav1.PartialObjectMetadata, error) {
			return s.Mark(ctx, existing, account.Mark{StartedAt: issuedAt.Add(time.Millisecond), ID: "ABCDEFGH"})
		}, map[string]any{
			"labels":      map[string]any{v1alpha1.LabelManagedBy: v1alpha1.ManagedByValue},
			"annotations": map[string]any{v1alpha1.AnnotationMintStarted: "2026-03-01T12:00:00.001Z/ABCDEFGH"},
		}, nil, "", nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			answer := liveSecret() // data and all, as a server may that does not know better
			answer.OwnerReferences = test.live
			store, api := newStore(t, http.StatusOK, answer)
			got, err := test.write(t.Context(), store)
			if err != nil {
				t.Fatal(err)
			}
			if first := api.requests[0]; test.live != nil && first.method == http.MethodGet && strings.Contains(first.accept, "as=PartialObjectMetadata") {
				api.requests = api.requests[1:]
			}
			r := api.only(t, http.MethodPatch, "/api/v1/namespaces/shop/secrets/shop-token")
			test.metadata["uid"], test.metadata["resourceVersion"] = "secret-uid", "42"
			body := map[string]any{"metadata": test.metadata}
			if test.data != nil {
				body["data"] = test.data
			}
			if !reflect.DeepEqual(r.body, body) {
				t.Errorf("body\n%v, want\n%v", r.body, body)
			}
			if r.contentType != "application/merge-patch+json" || r.query != test.query+"fieldManager=wechat-token-operator" {
				t.Errorf("%s?%s", r.contentType, r.query)
			}
			if first, _, _ := strings.Cut(r.accept, ","); !strings.Contains(first, "as=PartialObjectMetadata") {
				t.Errorf("asks for %s", r.accept)
			}
			if got.ResourceVersion != "43" || got.UID != "secret-uid" || got.Annotations[v1alpha1.AnnotationOwnerUID] != ownUID {
				t.Errorf("got %+v", got)
			}
			noToken(t, got)
		})
	}
}

func TestRefusals(t *testing.T) {
	status := apierrors.NewConflict(corev1.Resource("secrets"), "shop-token", io.EOF).Status()
	status.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
	store, api := newStore(t, http.StatusConflict, status)
	_, want := Want(shop(), Own, stored())
	c := content()
	_, errUpdate := store.Update(t.Context(), secret(), want, &c)
	_, errMark := store.Mark(t.Context(), secret(), account.Mark{StartedAt: issuedAt})
	_, errCreate := store.Create(t.Context(), shop(), want, c)
	for _, err := range []error{errUpdate, errMark, errCreate} {
		if !apierrors.IsConflict(err) || !strings.Contains(err.Error(), "shop/shop-token") {
			t.Errorf("%v, want a conflict that names the Secret", err)
		}
		noToken(t, err.Error())
	}
	if len(api.requests) != 3 {
		t.Errorf("%d requests: a conflict is the caller's to judge", len(api.requests))
	}
}
