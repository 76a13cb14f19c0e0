// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// TestCheckSelected checks that check -l and -A request a check of all resources that are chosen but not suspended, and go on after one
// that is refused.
func TestCheckSelected(t *testing.T) {
	w := newWorld(t, "selected")
	team := func(t *v1alpha1.WeChatAppToken) { t.Labels = map[string]string{"team": w.namespace} }
	w.createToken("a", team)
	w.createToken("b", team)
	w.createToken("other")
	w.createToken("paused", team, func(t *v1alpha1.WeChatAppToken) { t.Spec.Suspend = true })
	for _, name := range []string{"a", "b", "other"} {
		w.eventuallyState(name, stateReady, v1alpha1.ReasonTokenValid)
	}
	r := w.wxtoken("check", "-l", "team="+w.namespace)
	w.wants(r, exitOK, "a: the token in Secret a-token is the right one", "b: the token in Secret b-token is the right one",
		"paused: left out, because it is suspended")
	if strings.Contains(r.out, "other") || len(w.token("other").Annotations) > 0 {
		t.Errorf("a resource that was not chosen was checked:\n%s", r.out)
	}
	// -A would reach the resources of other tests, so a label bounds it.
	w.wants(w.wxtoken("check", "-A", "-l", "team="+w.namespace), exitOK, w.namespace+"/a: the token in", w.namespace+"/b: the token in")
	w.wants(w.wxtoken("check", "-A", "-l", "team="+w.namespace, "--wait=false"), exitOK,
		w.namespace+"/a: check requested. This shows the outcome:\n  kubectl wxtoken status a -n "+w.namespace+"\n")
	w.wants(w.wxtoken("check", "a", "-A"), exitUsage, "but not both")
	w.wants(w.wxtoken("check", "-l", "team=nobody"), exitFailed, "no WeChatAppToken was selected")
	w.wants(w.wxtoken("check", "-l", "team in"), exitUsage, "--selector")
}

// TestChainAndPods checks that status marks the link that is broken, in text and in JSON, and names the pods that use the Secret.
func TestChainAndPods(t *testing.T) {
	w := newWorld(t, "chain")
	w.createToken("shop")
	w.eventuallyState("shop", stateReady, v1alpha1.ReasonTokenValid)
	w.wants(w.wxtoken("status", "shop"), exitOK, "·   pods          none uses Secret shop-token", "- To use it, mount Secret shop-token as a volume")
	w.createPods()
	w.wants(w.wxtoken("status", "shop"), exitOK, "✗   pods          8 of 12 pods will never see a new token; 1 not running (ErrImagePull)",
		`✓   Deployment good        2 pods   container "app" mounts Secret "shop-token"`,
		`!   Deployment ill         1 pod    container "app" mounts Secret "shop-token"; not running (ErrImagePull)`,
		`✓   Deployment ill         1 pod    container "app" mounts Secret "shop-token"`,
		`✗   Deployment sub-path    2 pods   container "app" mounts Secret "shop-token" by subPath`,
		`- Deployment variables: container "app" has Secret "shop-token" in its environment (envFrom).`)

	w.wechat.Inject(wechattest.Fault{Errcode: 40164})
	w.wants(w.wxtoken("check", "shop"), exitBad, "allowlist")
	w.wants(w.wxtoken("status", "shop"), exitOK, "✓   credentials", "!   WeChat        IPNotAllowed, next attempt in", "✓   Secret        shop-token")
	var got statusJSON
	w.must(json.Unmarshal([]byte(w.ok("status", "shop", "-o", "json")), &got))
	levels := ""
	for _, l := range got.Chain {
		levels += l.Name + " " + l.Level + ", "
	}
	if levels != "credentials ok, WeChat warning, Secret ok, pods error, " {
		t.Errorf("chain: %s", levels)
	}
	if got.State != "RefreshFailing" || got.Reason != "IPNotAllowed" || got.NextAttemptTime == nil || len(got.Pods) != 7 || len(got.Pods[0].Pods) != 2 {
		t.Errorf("%+v", got)
	}
	commands := []string{}
	for _, a := range got.WhatToDo {
		commands = append(commands, a.Commands...)
	}
	if want := []string{"kubectl wxtoken check shop -n " + w.namespace, "kubectl describe pod ill-7d9f-a -n " + w.namespace}; !slices.EqualFunc(commands, want, strings.HasPrefix) {
		t.Errorf("commands %q, want %q", commands, want)
	}
	w.wants(w.wxtoken("status", "shop", "-o", "yaml"), exitUsage, "the only format is json")
}

// TestDoctorJSON checks that doctor's findings for programs are those for people.
func TestDoctorJSON(t *testing.T) {
	w := newWorld(t, "doctor-json")
	w.createTokenOnly("missing")
	w.createPod("variables", corev1.PodSpec{Containers: container(func(c *corev1.Container) {
		ref := corev1.LocalObjectReference{Name: "missing-token"}
		c.EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: ref}}}
	})})
	w.eventuallyState("missing", stateReconciling, v1alpha1.ReasonCredentialsNotFound)
	r := w.wxtoken("doctor", "-o", "json")
	w.wants(r, exitBad, "error: doctor found")
	var got doctorJSON
	w.must(json.Unmarshal([]byte(r.out), &got))
	found := map[string]findingJSON{}
	for _, c := range got.Chapters {
		if len(c.Findings) == 0 {
			t.Errorf("chapter %q says nothing", c.Title)
		}
		for _, f := range c.Findings {
			if f.Level == "error" {
				found[c.Title] = f
			}
		}
	}
	next := found["Credentials"].Next
	if next == nil || len(next.Commands) != 1 || !strings.HasPrefix(next.Commands[0], "kubectl create secret generic missing-wechat -n "+w.namespace) {
		t.Errorf("credentials: %+v", next)
	}
	if f := found["Pods"]; f.Next == nil || f.Next.Text != adviceEnv || len(f.Next.Commands) > 0 {
		t.Errorf("pods: %+v", f)
	}
	if got.Errors < 2 || got.Tokens != 1 || len(got.Namespaces) != 1 {
		t.Errorf("%+v", got)
	}
}

// TestStatusWatch checks that status -w into a pipe tells the story again after a change, and ends when the resource is deleted.
func TestStatusWatch(t *testing.T) {
	w := newWorld(t, "status-watch")
	w.createTokenOnly("shop")
	w.eventuallyState("shop", stateReconciling, v1alpha1.ReasonCredentialsNotFound)
	read, write := io.Pipe()
	lines := make(chan string, 1000)
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
	code := make(chan int, 1)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	go func() {
		code <- run(ctx, terminal{
			IOStreams: genericiooptions.IOStreams{In: strings.NewReader(""), Out: write, ErrOut: io.Discard},
			now:       time.Now, getenv: func(string) string { return "" },
		}, []string{"--kubeconfig", kubeconfig, "-n", w.namespace, "status", "shop", "-w"})
		_ = write.Close()
	}()
	until("Reconciling: CredentialsNotFound")
	w.createSecret("shop-wechat", map[string]string{"appSecret": appSecret})
	until("Ready: TokenValid")
	w.must(w.Delete(w.Context(), w.token("shop")))
	if got := <-code; got != exitFailed {
		t.Errorf("exit code %d after the deletion", got)
	}
}
