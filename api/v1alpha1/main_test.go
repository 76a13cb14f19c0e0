// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
)

// The tests ask a real API server. Cases that only ask whether it accepts something are dry runs in one namespace.
var (
	env    *testenv.Environment
	api    client.WithWatch
	scheme = runtime.NewScheme()
)

func TestMain(m *testing.M) {
	testenv.Main(m, func(_ context.Context, e *testenv.Environment) (_ func() error, err error) {
		env = e
		env.Config.QPS = -1
		if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
			return nil, err
		}
		api, err = client.NewWithWatch(env.Config, client.Options{Scheme: scheme})
		return nil, err
	})
}

// appID and credentials are in every resource unless a case says otherwise.
const (
	appID       = "wx0123456789abcdef"
	credentials = "credentials"
)

// resource is a WeChatAppToken with the top-level fields of a spec, as YAML, laid over the required ones. A null is sent
// as a null.
func resource(t *testing.T, namespace, name, spec string) *unstructured.Unstructured {
	t.Helper()
	fields := map[string]any{"appID": appID, "credentialsSecretRef": map[string]any{"name": credentials}}
	if err := yaml.Unmarshal([]byte(spec), &fields); err != nil {
		t.Fatalf("this test is wrong: %v in %s", err, spec)
	}
	u := &unstructured.Unstructured{Object: map[string]any{"spec": fields}}
	u.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(v1alpha1.Kind))
	u.SetNamespace(namespace)
	u.SetName(name)
	return u
}

// create stores a resource.
func create(t *testing.T, namespace, name, spec string) *unstructured.Unstructured {
	t.Helper()
	u := resource(t, namespace, name, spec)
	if err := api.Create(t.Context(), u, client.FieldValidation(metav1.FieldValidationStrict)); err != nil {
		t.Fatal(err)
	}
	return u
}

// newNamespace is a namespace for one test's stored objects.
func newNamespace(t *testing.T) string {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}
	if err := api.Create(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	return ns.Name
}

// decode reads what the API server answered as a Go client does, but refuses fields that the Go type does not know.
func decode(t *testing.T, u *unstructured.Unstructured) *v1alpha1.WeChatAppToken {
	t.Helper()
	raw, err := json.Marshal(u)
	if err != nil {
		t.Fatal(err)
	}
	token := &v1alpha1.WeChatAppToken{}
	if err := yaml.UnmarshalStrict(raw, token); err != nil {
		t.Fatalf("the API server accepts what Go cannot decode: %v\n%s", err, raw)
	}
	return token
}

// refused fails the test unless the API server refused something for this field alone, with this advice. The words are those of the newest
// API server.
func refused(t *testing.T, err error, field, advice string) {
	t.Helper()
	if err == nil {
		t.Errorf("accepted; want it refused at %s: %q", field, advice)
		return
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) || !apierrors.IsInvalid(err) || status.Status().Details == nil {
		t.Errorf("not refused as invalid: %v", err)
		return
	}
	advised := false
	for _, cause := range status.Status().Details.Causes {
		switch {
		case cause.Field == field:
			// v1.31 says it like this.
			message := strings.Replace(cause.Message, "may not be longer than", "may not be more than", 1)
			advised = advised || strings.Contains(message, advice)
		case strings.Contains(cause.Message, "with format int"): // v1.37 also says of the whole status that a number in it is too large
		case cause.Field != "<nil>": // that is the API server's note that it did not go on
			t.Errorf("also refused at %s: %s", cause.Field, cause.Message)
		}
	}
	if !advised {
		t.Errorf("want it refused at %s with %q, got:\n%v", field, advice, err)
	}
}

// specCase is a spec that is accepted, if field is empty, or refused for that field with that advice.
//
//nolint:kubeapilinter // a table, no part of the API
type specCase struct {
	name          string
	spec          string
	field, advice string
}

// try runs the cases as creations. What is accepted must be decodable, and must name Secrets that can exist.
func try(t *testing.T, cases []specCase) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			u := resource(t, metav1.NamespaceDefault, "shop", c.spec)
			err := api.Create(t.Context(), u, client.DryRunAll, client.FieldValidation(metav1.FieldValidationStrict))
			if c.field != "" {
				refused(t, err, c.field, c.advice)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			secretsCanExist(t, decode(t, u))
		})
	}
}

// secretsCanExist shows that no rule is laxer than those of Secrets: else the user learns of a mistake too late.
func secretsCanExist(t *testing.T, token *v1alpha1.WeChatAppToken) {
	t.Helper()
	target := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: token.Namespace, Name: token.TargetName(), Labels: map[string]string{}, Annotations: map[string]string{},
		},
		Data: map[string][]byte{token.Spec.Target.AccessTokenKey: nil, v1alpha1.ExpiresAtKey: nil, v1alpha1.AppIDKey: nil},
	}
	for k, v := range token.Spec.Target.Labels {
		target.Labels[k] = string(v)
	}
	for k, v := range token.Spec.Target.Annotations {
		target.Annotations[k] = string(v)
	}
	source := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: token.Namespace, Name: token.Spec.CredentialsSecretRef.Name},
		Data:       map[string][]byte{token.Spec.CredentialsSecretRef.Key: nil},
	}
	for _, secret := range []*corev1.Secret{target, source} {
		if err := api.Create(t.Context(), secret, client.DryRunAll); err != nil {
			t.Errorf("accepted, but the Secret is not: %v", err)
		}
	}
}
