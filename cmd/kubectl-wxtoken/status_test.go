// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

func TestStatus(t *testing.T) {
	w := newWorld(t, "status")
	w.createFamily()
	w.createPod("web", corev1.PodSpec{Volumes: secretVolume("shop-token"), Containers: container(mount(""))})
	now := w.lookLater("shop")
	w.golden("status-ready.txt", w.ok("status", "shop"), w.refreshIn("shop", now)...)
	w.golden("status-paused.txt", w.ok("status", "wxtoken/paused"))
	w.golden("status-no-credentials.txt", w.ok("status", "no-credentials"))
	for _, want := range []string{"Stalled: AppSecretInvalid", "RefreshFailed: AppSecretInvalid", "errcode 40125", actsAtOnce, writeCredentials(w.token("wrong-secret")) + "\n"} {
		if out := w.ok("status", "wrong-secret"); !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	w.setPodState("web-7d9f-b", corev1.PodPending, waiting("ErrImagePull"))
	w.golden("status-not-running.txt", w.ok("status", "shop"), w.refreshIn("shop", now)...)
}

// TestNoCommandReadsData checks that the API server sends the token to no command but reveal, and the AppSecret to none but doctor, which
// checks its form. It is not enough that they are not printed.
func TestNoCommandReadsData(t *testing.T) {
	w := newWorld(t, "no-data")
	w.createToken("shop")
	w.eventuallyState("shop", stateReady, v1alpha1.ReasonTokenValid)
	spied := w.spyOnAnswers()
	for _, command := range [][]string{
		{"list"}, {"list", "-o", "yaml"}, {"status", "shop"}, {"check", "shop"}, {"refresh", "shop"}, {"wait", "shop"}, {"doctor"},
		{"suspend", "shop"}, {"resume", "shop"}, {"revoke", "shop", "--yes", "--wait=false"},
	} {
		answers := spied(command...)
		for _, issued := range w.wechat.Tokens("") {
			if holds(answers, issued.Token) {
				t.Errorf("%v asked for the token", command)
			}
		}
		if holds(answers, appSecret) && command[0] != "doctor" {
			t.Errorf("%v asked for the AppSecret", command)
		}
	}
	// The search itself works.
	if answers := spied("reveal", "shop", "--yes"); !holds(answers, w.value("shop")) {
		t.Error("reveal was not sent the token: this test sees nothing")
	}
}

// holds reports whether answers contain a value of a Secret, as protobuf or as JSON encodes it.
func holds(answers []byte, value string) bool {
	return bytes.Contains(answers, []byte(value)) || bytes.Contains(answers, []byte(base64.StdEncoding.EncodeToString([]byte(value))))
}

// spyOnAnswers returns a function that runs a command and returns everything that the API server sent to it.
func (w *world) spyOnAnswers() func(args ...string) []byte {
	w.Helper()
	transport, err := rest.TransportFor(env.Config)
	w.must(err)
	server, err := url.Parse(env.Config.Host)
	w.must(err)
	var mu sync.Mutex
	var answers bytes.Buffer
	proxy := httptest.NewServer(&httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(server)
			r.Out.Header.Del("Accept-Encoding")
		},
		ModifyResponse: func(r *http.Response) error {
			body, err := io.ReadAll(r.Body)
			mu.Lock()
			defer mu.Unlock()
			answers.Write(body)
			r.Body = io.NopCloser(bytes.NewReader(body))
			return err
		},
	})
	w.Cleanup(proxy.Close)
	config := clientcmdapi.NewConfig()
	config.Clusters["spied"] = &clientcmdapi.Cluster{Server: proxy.URL}
	config.Contexts["spied"] = &clientcmdapi.Context{Cluster: "spied"}
	config.CurrentContext = "spied"
	path := filepath.Join(w.TempDir(), "kubeconfig")
	w.must(clientcmd.WriteToFile(*config, path))
	return func(args ...string) []byte {
		w.Helper()
		mu.Lock()
		answers.Reset()
		mu.Unlock()
		if r := w.wxtoken(append(args, "--kubeconfig", path)...); r.code != exitOK && args[0] != "doctor" {
			w.Fatalf("%v ended with %d: %s%s", args, r.code, r.out, r.err)
		}
		mu.Lock()
		defer mu.Unlock()
		return bytes.Clone(answers.Bytes())
	}
}

func TestDelivery(t *testing.T) {
	at := metav1.NewTime(time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC))
	shop := func(d *v1alpha1.DeliveryStatus) look {
		t := &v1alpha1.WeChatAppToken{}
		t.Spec.Target.Delivery = v1alpha1.DeliveryPrompt
		t.Status.Token = &v1alpha1.TokenStatus{Fingerprint: "new"}
		t.Status.Delivery = d
		return lookAt(t, at.Time)
	}
	// With tickets, the operator writes what identifies the token and them.
	tickets := shop(&v1alpha1.DeliveryStatus{Fingerprint: token.CombinedFingerprint("new", []string{"a", "b"}), Pods: 2, Reached: 2, Time: at})
	tickets.Status.Tickets = []v1alpha1.TicketStatus{{Type: v1alpha1.TicketJSAPI, Fingerprint: "a"}, {Type: "wx_card", Fingerprint: "b"}}
	degraded := shop(&v1alpha1.DeliveryStatus{Fingerprint: "new", Pods: 3, Reached: 2, Time: at})
	degraded.degraded = &metav1.Condition{Reason: v1alpha1.ReasonPodsForbidden}
	for want, l := range map[string]look{
		"": lookAt(&v1alpha1.WeChatAppToken{}, at.Time),
		"prompt: 2 of 2 pods told of this token, at 2026-01-02 15:04:05 UTC":                          tickets,
		"prompt: 3 of 3 pods told of this token, at 2026-01-02 15:04:05 UTC":                          shop(&v1alpha1.DeliveryStatus{Fingerprint: "new", Pods: 3, Reached: 3, Time: at}),
		"prompt: no pod mounts the Secret":                                                            shop(&v1alpha1.DeliveryStatus{Fingerprint: "new", Time: at}),
		"prompt: pods were not told of this token yet":                                                shop(&v1alpha1.DeliveryStatus{Fingerprint: "old", Pods: 3, Reached: 3, Time: at}),
		"prompt: 2 of 3 pods told of this token, at 2026-01-02 15:04:05 UTC; degraded: PodsForbidden": degraded,
	} {
		if got := l.delivery(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestStatusForAViewer checks that a user who may only see WeChatAppTokens gets the status, with a note about what is missing.
func TestStatusForAViewer(t *testing.T) {
	w := newWorld(t, "status-viewer")
	w.createToken("shop")
	w.lookLater("shop")
	w.grant("viewer", "view-wxtoken", rule(v1alpha1.GroupName, "wechatapptokens", "get", "list"))
	// The API server learns of the role a moment later.
	w.Eventually(func() int { return w.wxtoken("status", "shop", "--as", "viewer").code }).Should(gomega.Equal(exitOK))
	out := w.ok("status", "shop", "--as", "viewer")
	for _, want := range []string{"Ready: TokenValid", `Not shown: could not read the annotations of Secret "shop-token"`, "Not shown: could not list events", "Not shown: could not list pods", "·   pods          not looked at"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
}
