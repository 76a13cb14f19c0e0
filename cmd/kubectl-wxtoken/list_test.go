// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/onsi/gomega"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

const (
	// otherAppID is an account whose AppSecret the test does not know.
	otherAppID = "wxfedcba9876543210"
)

// createFamily creates a resource in each state that a list has to show.
func (w *world) createFamily() {
	w.Helper()
	w.wechat.SetApp(wechattest.App{ID: otherAppID, Secret: strings.Repeat("f", 32)})
	w.createToken("shop", func(t *v1alpha1.WeChatAppToken) { t.Labels = map[string]string{"team": "shop"} })
	w.createToken("wrong-secret", func(t *v1alpha1.WeChatAppToken) { t.Spec.AppID = otherAppID })
	w.createTokenOnly("no-credentials")
	w.createToken("paused", func(t *v1alpha1.WeChatAppToken) { t.Spec.Suspend = true })
	w.eventuallyState("wrong-secret", stateStalled, v1alpha1.ReasonAppSecretInvalid)
	w.eventuallyState("no-credentials", stateReconciling, v1alpha1.ReasonCredentialsNotFound)
	w.eventuallyState("paused", stateSuspended, v1alpha1.ReasonTokenNotIssued)
}

func TestList(t *testing.T) {
	w := newWorld(t, "list")
	w.createFamily()
	now := w.lookLater("shop")
	hide := w.refreshIn("shop", now)
	w.golden("list.txt", w.ok("list"), hide...)
	w.golden("list-wide.txt", w.ok("list", "-o", "wide"), hide...)
	w.golden("list-selector.txt", w.ok("list", "-l", "team=shop", "--no-headers"), hide...)
	w.golden("list-name.txt", w.ok("list", "-o", "name"))
	if out := w.ok("list", "-A", "--field-selector", "metadata.namespace="+w.namespace); !strings.HasPrefix(out, "NAMESPACE ") {
		t.Errorf("-A does not show the namespace:\n%s", out)
	}
	if out := w.ok("list", "--field-selector", "spec.appID="+otherAppID, "-o", "name"); strings.Count(out, "\n") != 1 {
		t.Errorf("by appid:\n%s", out)
	}
}

// TestListForPrograms checks that the formats for programs print the objects as kubectl does.
func TestListForPrograms(t *testing.T) {
	w := newWorld(t, "list-programs")
	w.createToken("shop")
	w.lookLater("shop")
	var l v1alpha1.WeChatAppTokenList
	if err := json.Unmarshal([]byte(w.ok("list", "-o", "json")), &l); err != nil {
		t.Fatal(err)
	}
	if len(l.Items) != 1 || l.Items[0].Status.Token == nil || l.Kind != "WeChatAppTokenList" {
		t.Errorf("-o json: %+v", l)
	}
	if out := w.ok("list", "-o", "yaml"); !strings.Contains(out, "kind: WeChatAppTokenList\n") || strings.Contains(out, "managedFields") {
		t.Errorf("-o yaml:\n%s", out)
	}
	if out := w.ok("list", "-o", "jsonpath={.items[*].spec.appID}"); out != w.appID {
		t.Errorf("-o jsonpath: %q", out)
	}
}

// TestListWatch checks that list -w into a pipe prints a line for each resource and each change, until Ctrl-C, which is no failure.
func TestListWatch(t *testing.T) {
	w := newWorld(t, "list-watch")
	w.createToken("shop")
	w.eventuallyState("shop", stateReady, v1alpha1.ReasonTokenValid)
	first := w.token("shop").Status.Token.Fingerprint
	read, write := io.Pipe()
	lines := make(chan string, 100)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(read); s.Scan(); {
			lines <- s.Text()
		}
	}()
	until := func(text string) {
		t.Helper()
		for deadline := time.After(patience); ; {
			select {
			case line, open := <-lines:
				if !open {
					t.Fatalf("it ended before %q", text)
				}
				if strings.Contains(line, text) {
					return
				}
			case <-deadline:
				t.Fatalf("no line with %q", text)
			}
		}
	}
	ctx, interrupt := context.WithCancel(t.Context())
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, terminal{
			IOStreams: genericiooptions.IOStreams{In: strings.NewReader(""), Out: write, ErrOut: io.Discard},
			now:       time.Now, getenv: func(string) string { return "" },
		}, []string{"--kubeconfig", kubeconfig, "-n", w.namespace, "list", "-w", "-o", "wide"})
		_ = write.Close()
	}()
	until("NAME ")
	until(first)
	w.ok("refresh", "shop")
	until(w.token("shop").Status.Token.Fingerprint)
	w.createTokenOnly("second")
	until("second ")
	interrupt()
	if got := <-code; got != exitOK {
		t.Errorf("exit code %d", got)
	}
}

func TestListOfNothing(t *testing.T) {
	w := newBareWorld(t, "list-nothing")
	r := w.wxtoken("list")
	if r.code != exitOK || r.out != "" || !strings.Contains(r.err, `No WeChatAppTokens found in namespace "`+w.namespace+`"; -A looks into all`) {
		t.Errorf("%+v", r)
	}
}

// TestListOfWhatNobodyRefreshes checks the state of an expired token whose status still says that it is valid, as after the end of the
// operator.
func TestListOfWhatNobodyRefreshes(t *testing.T) {
	w := newBareWorld(t, "list-nobody")
	stop := w.startOperator()
	w.createToken("shop")
	w.lookLater("shop")
	stop()
	at := w.token("shop").Status.Token.ExpirationTime.Add(4 * time.Minute)
	w.now = func() time.Time { return at }
	w.golden("list-nobody.txt", w.ok("list"))
	w.golden("status-nobody.txt", w.ok("status", "shop"), w.dueAgo("shop", at)...)
	w.Expect(w.ok("list", "-o", "wide")).To(gomega.ContainSubstring("no operator updates it"))
}
