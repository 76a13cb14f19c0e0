// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

func TestSuspendResumeAndWait(t *testing.T) {
	w := newWorld(t, "suspend")
	w.createToken("shop", func(t *v1alpha1.WeChatAppToken) {
		t.Labels = map[string]string{"kustomize.toolkit.fluxcd.io/name": "apps"}
	})
	w.wants(w.wxtoken("wait", "shop"), exitOK, "shop: Secret shop-token holds a token that is valid for 1h59m")
	w.wants(w.wxtoken("suspend", "shop"), exitOK, "shop: suspended; nobody replaces the token, which expires in 1h59m",
		"Flux's Kustomization apps applies this resource and will undo it: set spec.suspend in Git too")
	w.eventuallyState("shop", stateSuspended, v1alpha1.ReasonTokenValid)
	w.wants(w.wxtoken("suspend", "shop"), exitOK, "nothing to do, it is suspended already")
	w.wants(w.wxtoken("status", "shop"), exitOK, "Nobody replaces the token, and it expires in 1h59m", "kubectl wxtoken resume shop")
	w.wants(w.wxtoken("resume", "shop"), exitOK, "shop: resumed")
	w.wants(w.wxtoken("resume", "shop"), exitOK, "nothing to do, it is not suspended")
	w.eventuallyState("shop", stateReady, v1alpha1.ReasonTokenValid)
}

// TestWaitInVain checks that wait gives up at once where waiting does not help, and after its timeout elsewhere.
func TestWaitInVain(t *testing.T) {
	w := newWorld(t, "wait")
	w.createFamily()
	w.wants(w.wxtoken("wait", "wrong-secret"), exitBad, "AppSecretInvalid", "kubectl wxtoken status wrong-secret")
	w.wants(w.wxtoken("wait", "no-credentials", "--timeout=1s"), exitTimeout, "no valid token within 1s", "create it with the AppSecret")
	w.wants(w.wxtoken("wait", "paused"), exitBad, "kubectl wxtoken resume paused")
	w.wants(w.wxtoken("wait", "nobody"), exitFailed, "kubectl wxtoken list")
	w.wants(w.wxtoken("wait", "shop", "wrong-secret"), exitBad, "shop: Secret shop-token holds")
}

// TestWaitInterrupted checks that Ctrl-C ends a wait with the exit code of shells, and that nothing is said about it; what was found before
// that is.
func TestWaitInterrupted(t *testing.T) {
	w := newBareWorld(t, "interrupted")
	w.createTokenOnly("shop")
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"wait", "shop"}, exitInterrupted, ""},
		{[]string{"wait", "shop", "shop"}, exitInterrupted, ""},
		{[]string{"wait", "nobody", "shop"}, exitFailed, "nobody"},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		var errOut bytes.Buffer
		out := &interrupting{cancel: cancel}
		code := run(ctx, terminal{
			IOStreams: genericiooptions.IOStreams{In: strings.NewReader(""), Out: out, ErrOut: &errOut},
			now:       w.now, getenv: func(string) string { return "" },
		}, append([]string{"--kubeconfig", kubeconfig, "--namespace", w.namespace}, c.args...))
		said := errOut.String()
		if code != c.code || (said == "") != (c.says == "") || !strings.Contains(said, c.says) || strings.Contains(said, "canceled") {
			t.Errorf("%q ended with %d and said %q", c.args, code, said)
		}
		if !out.written {
			t.Errorf("%q ended before it was interrupted", c.args)
		}
	}
}

// interrupting is an output at whose first line the user presses Ctrl-C.
type interrupting struct {
	cancel  context.CancelFunc
	written bool
	// at is in the text at which he does; empty for any.
	at string
}

func (i *interrupting) Write(p []byte) (int, error) {
	if strings.Contains(string(p), i.at) {
		i.written = true
		i.cancel()
	}
	return len(p), nil
}

// TestRevokeInterrupted checks that Ctrl-C ends the question of revoke, which waits for a terminal.
func TestRevokeInterrupted(t *testing.T) {
	w := newWorld(t, "revoke-interrupted")
	w.createToken("shop")
	w.eventuallyState("shop", stateReady, v1alpha1.ReasonTokenValid)
	silent, end := io.Pipe()
	t.Cleanup(func() { _ = end.Close() })
	ctx, cancel := context.WithCancel(t.Context())
	out := &interrupting{cancel: cancel, at: "[y/N]"}
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, terminal{
			IOStreams: genericiooptions.IOStreams{In: silent, Out: out, ErrOut: io.Discard},
			now:       w.now, getenv: func(string) string { return "" },
		}, []string{"--kubeconfig", kubeconfig, "--namespace", w.namespace, "revoke", "shop"})
	}()
	select {
	case code := <-ended:
		if code != exitInterrupted || !out.written {
			t.Errorf("ended with %d; it asked: %t", code, out.written)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it waits for an answer")
	}
	if a := w.token("shop").Annotations; len(a) != 0 {
		t.Errorf("annotations: %v", a)
	}
}

func TestReveal(t *testing.T) {
	w := newWorld(t, "reveal")
	w.createToken("shop")
	w.createTokenOnly("empty")
	w.eventuallyState("shop", stateReady, v1alpha1.ReasonTokenValid)
	r := w.wxtoken("reveal", "shop")
	w.wants(r, exitUsage, "add --yes")
	if strings.Contains(r.out+r.err, w.value("shop")) {
		t.Error("the token was printed without --yes")
	}
	if r := w.wxtoken("reveal", "shop", "--yes"); r.code != exitOK || r.out != w.value("shop")+"\n" || r.err != "" {
		t.Errorf("exit code %d, standard error %q", r.code, r.err)
	}
	w.wants(w.wxtoken("reveal", "empty", "--yes"), exitFailed, `there is no token: Secret "empty-token" does not exist`)

	w.grant("viewer", "view-wxtoken", rule(v1alpha1.GroupName, "wechatapptokens", "get", "list"))
	w.wants(w.wxtoken("reveal", "shop", "--yes", "--as", "viewer"), exitFailed, `could not read Secret "shop-token"`, "edit changes them and reads Secrets")

	// The status names another token than the one in the Secret, as after an edit by hand.
	shop := w.token("shop")
	base := shop.DeepCopy()
	shop.Status.Token.Fingerprint = "0000000000000000"
	w.must(w.Client.Status().Patch(w.Context(), shop, client.MergeFrom(base)))
	r = w.wxtoken("reveal", "shop", "--yes")
	w.wants(result{code: r.code, err: r.err}, exitOK, "not the token that the operator wrote")

	// Whoever may write the Secret must not reach the terminal of whoever reads it.
	w.createTokenOnly("planted")
	for _, value := range []string{"a\x1b[2Jb", "a\u009b31mb", "a\nb", "a b", "a\rb", "a\u202eb", "令牌", "a\xffb", "a\x00", " "} {
		secret := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "planted-token"}, Data: map[string][]byte{"access_token": []byte(value)},
		}
		w.must(w.Create(w.Context(), secret))
		r := w.wxtoken("reveal", "planted", "--yes")
		w.wants(r, exitFailed, "characters that no token has", "kubectl wxtoken check planted -n "+w.namespace)
		if r.out != "" {
			t.Errorf("%q: %q is printed", value, r.out)
		}
		w.must(w.Delete(w.Context(), secret))
	}
}
