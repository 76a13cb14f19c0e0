// SPDX-License-Identifier: Apache-2.0

package silence

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
)

const (
	// appSecret is that of every app here.
	appSecret = "q7Zt1mKc4Xw9Rb2Vn6Ls8Hd3Jf5Gp0Ya"
	// needle is a token that looks different in every form.
	needle = `92_Uo3kXvQ8sT1dWm"Lz5rYc7Hn2Bp<Jf4Gt9Ke6Sx&Ra0VqMw8Zy1+Dn3Ih5Ou7Pl/Ce2Tb4Wk6=Fs9Qj0Xa8\Gm3Nv5Yd`
	// plain is a token that has the form of WeChat's.
	plain    = "93_Uq3kXvQ8sT1dWmLz5rYc7Hn2BpJf4Gt9Ke6SxRa0VqMw8Zy1Dn3Ih5Ou7PlCe2Tb4Wk6Fs9Qj0Xa8Gm3Nv5Yd"
	tokenKey = v1alpha1.DefaultAccessTokenKey
	// patience is for what should take a few seconds.
	patience = 45 * time.Second
)

// env is the control plane of all tests here.
var env *testenv.Environment

func TestMain(m *testing.M) {
	if namespace := os.Getenv(leakRole); namespace != "" {
		fmt.Fprintln(os.Stderr, leak(namespace))
		os.Exit(1)
	}
	testenv.Main(m, func(_ context.Context, e *testenv.Environment) (func() error, error) {
		env = e
		return nil, nil
	})
}

func scheme() *runtime.Scheme {
	s := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(s), v1alpha1.AddToScheme(s)); err != nil {
		panic(err)
	}
	return s
}

func newClient(t *testing.T) client.Client {
	t.Helper()
	c, err := client.New(env.Config, client.Options{Scheme: scheme()})
	must(t, err)
	return c
}

func newNamespace(t *testing.T) string {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}
	must(t, newClient(t).Create(t.Context(), ns))
	return ns.Name
}

func newToken(namespace, name, app string, mode v1alpha1.Mode) *v1alpha1.WeChatAppToken {
	return &v1alpha1.WeChatAppToken{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: v1alpha1.WeChatAppTokenSpec{
			AppID: app, Mode: mode, CredentialsSecretRef: v1alpha1.CredentialsSecretReference{Name: "credentials"},
			CheckInterval: metav1.Duration{Duration: 30 * time.Second},
		},
	}
}

func eventually(t *testing.T, what string, look func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !look(); {
		if time.Now().After(end) {
			t.Fatalf("waited %s in vain until %s", patience, what)
		}
		time.Sleep(100 * time.Millisecond)
	}
}
