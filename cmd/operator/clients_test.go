// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
)

// TestClientsStart: the controller of WeChatAppClients is set up once they can be listed, and the log tells once what is missing.
func TestClientsStart(t *testing.T) {
	var (
		clients   = schema.GroupResource{Group: "wechat.apptoken.dev", Resource: "wechatappclients"}
		missing   = apierrors.NewGenericServerResponse(http.StatusNotFound, "get", clients, "", "404 page not found", 0, true)
		forbidden = apierrors.NewForbidden(clients, "", nil)
	)
	for name, tt := range map[string]struct {
		answers []error // the last one is repeated
		sets    bool
		logged  int
	}{
		"served":            {answers: []error{nil}, sets: true},
		"installed later":   {answers: []error{missing, missing, nil}, sets: true, logged: 1},
		"never":             {answers: []error{missing}, logged: 1},
		"rights come later": {answers: []error{missing, forbidden, forbidden, nil}, sets: true, logged: 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithTimeout(t.Context(), 10*time.Minute)
				defer stop()
				asked, set, lines := 0, 0, []string{}
				err := clientsStart{
					log:      funcr.New(func(_, args string) { lines = append(lines, args) }, funcr.Options{}),
					interval: clientsInterval,
					list: func(context.Context) error {
						asked++
						return tt.answers[min(asked, len(tt.answers))-1]
					},
					setUp: func(context.Context) error { set++; return nil },
				}.Start(ctx)
				if err != nil || (set == 1) != tt.sets || len(lines) != tt.logged {
					t.Errorf("error %v, set up %d times, logged %q", err, set, lines)
				}
				if tt.sets && asked != len(tt.answers) {
					t.Errorf("asked %d times", asked)
				}
			})
		})
	}
}

func TestGatewayFlags(t *testing.T) {
	const ca = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"
	file := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(file, []byte("# ours\n-----BEGIN PRIVATE KEY-----\nMA==\n-----END PRIVATE KEY-----\n"+ca+"\n"+ca), 0o600); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"": "",
		"--gateway-url=https://wechat-gateway.wechat.svc/":                               "https://wechat-gateway.wechat.svc",
		"--gateway-url=http://wechat-gateway.wechat.svc:8080":                            "http://wechat-gateway.wechat.svc:8080",
		"--gateway-url=https://wechat-gateway.wechat.svc:8443 --gateway-ca-file=" + file: "https://wechat-gateway.wechat.svc:8443",
	} {
		o := parse(t, strings.Fields(args)...)
		err := o.complete()
		if err != nil {
			t.Errorf("%s: %v", args, err)
			continue
		}
		g := o.gateway.Current()
		if g.URL != want || g.Problem != "" {
			t.Errorf("%s: %+v", args, g)
		}
		if wantCA := strings.Contains(args, "ca-file"); (g.CA == ca+ca) != wantCA || strings.Contains(g.CA, "PRIVATE") {
			t.Errorf("%s: the certificates are %q", args, g.CA)
		}
	}
	if err := parse(t, "--gateway-ca-file="+file).complete(); err == nil {
		t.Error("a CA without a URL is accepted")
	}
}

// cert-manager makes the file of --gateway-ca-file when it likes, and replaces it. The operator serves tokens meanwhile.
func TestGatewayCAFile(t *testing.T) {
	const first = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"
	const second = "-----BEGIN CERTIFICATE-----\nMQ==\n-----END CERTIFICATE-----\n"
	file := filepath.Join(t.TempDir(), "ca.crt")
	o := parse(t, "--gateway-url=https://wechat-gateway.wechat.svc", "--gateway-ca-file="+file)
	if err := o.complete(); err != nil {
		t.Fatalf("the file is missing at the start: %v", err)
	}
	changes := 0
	reload := o.gateway.reloader(func() { changes++ })
	for _, step := range []struct {
		content, ca, problem string
		changed, fails       bool
	}{
		{"", "", "no such file", false, true},
		{"nothing", "", "has no certificate in PEM", true, true},
		{first, first, "", true, false},
		{first, first, "", false, false},
		{"nothing", first, "", false, true},
		{second, second, "", true, false},
	} {
		if step.content != "" {
			if err := os.WriteFile(file, []byte(step.content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		changes = 0
		changed, err := reload()
		g := o.gateway.Current()
		if changed != step.changed || (err != nil) != step.fails || (changes == 1) != step.changed {
			t.Errorf("%q: changed %t, %v, told %d times", step.content, changed, err, changes)
		}
		if g.CA != step.ca || !strings.Contains(g.Problem, step.problem) || (g.Problem == "") != (g.URL != "") {
			t.Errorf("%q: %+v", step.content, g)
		}
	}
}

// TestMissingClientCRD runs an operator in a cluster that has the CRD of WeChatAppTokens alone. It is ready and serves them, and serves
// WeChatAppClients without a restart once their CRD is installed.
func TestMissingClientCRD(t *testing.T) {
	t.Parallel() // it waits for a process
	g := gomega.NewWithT(t)
	const bases = "../../config/crd/bases/wechat.apptoken.dev_"
	env := testenv.ForTest(t, testenv.Bare(bases+"wechatapptokens.yaml"))
	address, err := testenv.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	p := startProcess(t, env.KubeConfig, "--health-probe-bind-address="+address, "--gateway-url=https://wechat-gateway.wechat.svc",
		"--wechat-endpoints=http://127.0.0.1:1")
	g.Eventually(func() (int, error) {
		res, err := http.Get("http://" + address + "/readyz") //nolint:forbidigo // a test's
		if err != nil {
			return 0, err
		}
		return res.StatusCode, res.Body.Close()
	}, 20*time.Second).Should(gomega.Equal(http.StatusOK))
	admin := adminOf(t, env)
	shop := &v1alpha1.WeChatAppToken{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "shop"},
		Spec: v1alpha1.WeChatAppTokenSpec{
			AppID: "wx0123456789abcdef", CredentialsSecretRef: v1alpha1.CredentialsSecretReference{Name: "credentials"},
		},
	}
	g.Expect(admin.Create(t.Context(), shop)).To(gomega.Succeed())
	g.Eventually(func() int64 {
		_ = admin.Get(t.Context(), client.ObjectKeyFromObject(shop), shop)
		return shop.Status.ObservedGeneration
	}, 20*time.Second).Should(gomega.Equal(int64(1)), "tokens are served")
	g.Expect(p.logged()).To(gomega.ContainSubstring("WeChatAppClients are not served until"))

	text, err := os.ReadFile(bases + "wechatappclients.yaml")
	g.Expect(err).NotTo(gomega.HaveOccurred())
	crd := &unstructured.Unstructured{}
	g.Expect(yaml.Unmarshal(text, &crd.Object)).To(gomega.Succeed())
	g.Expect(admin.Create(t.Context(), crd)).To(gomega.Succeed())
	api := &v1alpha1.WeChatAppClient{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "api"},
		Spec: v1alpha1.WeChatAppClientSpec{
			TokenRef: v1alpha1.TokenReference{Name: "shop"}, Paths: []v1alpha1.ClientPath{"/wxa/*"},
			Key: &v1alpha1.ClientKeySpec{SecretName: "api-key"},
		},
	}
	g.Eventually(func() error { return admin.Create(t.Context(), api.DeepCopy()) }, 20*time.Second).Should(gomega.Succeed())
	g.Eventually(func() error {
		if err := admin.Get(t.Context(), client.ObjectKeyFromObject(api), api); err != nil {
			return err
		}
		if api.Status.Key == nil {
			return errors.New("no key yet")
		}
		return admin.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: "api-key"}, &corev1.Secret{})
	}, 50*time.Second).Should(gomega.Succeed())
	p.terminate(t, 10*time.Second)
}
