// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// issueWithin is the longest time from the sample to a token that WeChat accepts.
const issueWithin = 2 * time.Second

// say prints one line.
func (s *stage) say(format string, args ...any) { fmt.Fprintf(s.out, format+"\n", args...) }

// step prints one line of the story, with the time since the demo began.
func (s *stage) step(format string, args ...any) {
	s.say("%6.1f s  %s", time.Since(s.start).Seconds(), fmt.Sprintf(format, args...))
}

type chapter func(context.Context) error

// mainJob is the main job, step by step.
func (s *stage) mainJob() []chapter {
	return []chapter{s.prepare, s.issue, s.rotate, s.replaceCredentials, s.surviveOutage, s.summarize}
}

// tell goes through the chapters until one fails.
func tell(ctx context.Context, chapters []chapter) error {
	for _, chapter := range chapters {
		if err := chapter(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *stage) prepare(ctx context.Context) error {
	s.say("A WeChatAppToken keeps a Secret supplied with a valid WeChat access token.")
	s.say("Tokens live for %s here, so that the story is short; WeChat's live for two hours.", s.life)
	s.say("")
	return s.setUp(ctx)
}

// setUp starts what both stories need.
func (s *stage) setUp(ctx context.Context) error {
	if err := s.startControlPlane(ctx); err != nil {
		return err
	}
	s.step("etcd and kube-apiserver run, the CRD is installed")
	if err := s.startWeChat(); err != nil {
		return err
	}
	s.step("a stand-in for WeChat answers at %s", s.wechat.URL())
	if err := s.startOperator(ctx); err != nil {
		return err
	}
	s.step("the operator is ready")
	return nil
}

// issue applies the sample and waits for the token.
func (s *stage) issue(ctx context.Context) error {
	if err := s.supply(ctx); err != nil {
		return err
	}
	s.reader = startReader(ctx, s.client, s.wechat, s.targetKey(), s.token.Spec.Target.AccessTokenKey)
	if _, err := s.kubectl(ctx, "wait", "--for=condition=Ready", "--timeout=10s", "wechatapptoken/"+s.token.Name); err != nil {
		return err
	}
	computed, err := s.kstatus(ctx)
	if err != nil {
		return err
	}
	if computed != status.CurrentStatus {
		return fmt.Errorf("kstatus, which Flux and Argo CD judge by, says %s instead of %s", computed, status.CurrentStatus)
	}
	s.step("kubectl wait --for=condition=Ready returned, kstatus says %s", computed)
	return nil
}

// supply applies the sample and waits until the Secret holds a token.
func (s *stage) supply(ctx context.Context) error {
	objects, err := readSample(s.sample)
	if err != nil {
		return err
	}
	applied := time.Now()
	for _, o := range objects {
		o.SetNamespace(namespace)
		if err := s.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(o), client.FieldOwner("demo")); err != nil {
			return fmt.Errorf("applying %s %s: %w", o.GetKind(), o.GetName(), err)
		}
		switch o.GetKind() {
		case v1alpha1.Kind:
			s.token = &v1alpha1.WeChatAppToken{}
			s.token.Name, s.token.Namespace = o.GetName(), namespace
		case v1alpha1.ClientKind:
			s.relay.client = &v1alpha1.WeChatAppClient{}
			s.relay.client.Name, s.relay.client.Namespace = o.GetName(), namespace
		}
	}
	if s.token == nil {
		return fmt.Errorf("%s holds no %s", s.sample, v1alpha1.Kind)
	}
	if err := s.reload(ctx); err != nil {
		return err
	}
	s.step("applied: %s %q for appid %s, token into Secret %q", v1alpha1.Kind, s.token.Name, s.token.Spec.AppID, s.token.TargetName())
	err = s.eventually(ctx, issueWithin, "the Secret holds a token that WeChat accepts", func() (bool, string) {
		return s.wechat.Valid(s.value(ctx)), "no valid token"
	})
	if err != nil {
		return err
	}
	s.step("token issued and Secret written: WeChat accepts it %s after the sample was applied", since(applied))
	return nil
}

// rotate waits for the next token.
func (s *stage) rotate(ctx context.Context) error {
	before := s.value(ctx)
	if err := s.untilAnother(ctx, before, s.life); err != nil {
		return err
	}
	old, err := s.issued(before)
	if err != nil {
		return err
	}
	left := old.ExpiresAt.Sub(s.wechat.Now()).Round(100 * time.Millisecond)
	if left <= 0 {
		return errors.New("the token was replaced after its end")
	}
	s.step("token rotated by itself; the one before was good for another %s", left)
	return nil
}

// replaceCredentials gives the account a new AppSecret.
func (s *stage) replaceCredentials(ctx context.Context) error {
	ref := s.token.Spec.CredentialsSecretRef
	fingerprint := func() string {
		secret, err := s.target(ctx)
		if err != nil {
			return ""
		}
		return secret.Annotations[v1alpha1.AnnotationCredentialsFingerprint]
	}
	before, changed := fingerprint(), time.Now()
	fresh := rand.Text() + rand.Text()
	s.wechat.SetSecret(s.token.Spec.AppID, fresh)
	secret := &corev1.Secret{}
	if err := s.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: ref.Name}, secret); err != nil {
		return fmt.Errorf("reading the credentials: %w", err)
	}
	base := secret.DeepCopy()
	secret.Data[ref.Key] = []byte(fresh)
	if err := s.client.Patch(ctx, secret, client.MergeFrom(base)); err != nil {
		return fmt.Errorf("replacing the credentials: %w", err)
	}
	err := s.eventually(ctx, 5*time.Second, "the new AppSecret is used", func() (bool, string) {
		return fingerprint() != before, "the Secret names the old one"
	})
	if err != nil {
		return err
	}
	for _, c := range s.wechat.Calls(wechattest.Filter{AppID: s.token.Spec.AppID, Since: changed}) {
		if c.Errcode == 0 {
			s.step("AppSecret replaced: WeChat accepted a call with the new one after %s", c.At.Sub(changed).Round(time.Millisecond))
			return nil
		}
	}
	return errors.New("WeChat saw no call with the new AppSecret")
}

// surviveOutage lets WeChat fail when the next rotation is due: at first it cuts connections, then it answers an errcode
// on HTTP 200.
func (s *stage) surviveOutage(ctx context.Context) error {
	if err := s.reload(ctx); err != nil {
		return err
	}
	if s.token.Status.NextRefreshTime == nil {
		return errors.New("the status does not say when the next refresh is due")
	}
	before, begin := s.value(ctx), time.Now()
	const cuts = 2
	s.wechat.Inject(wechattest.Fault{Cut: wechattest.CutBefore, Times: cuts})
	s.wechat.Inject(wechattest.Fault{Errcode: -1})
	s.step("WeChat fails from now on; the next refresh is due in %s", time.Until(s.token.Status.NextRefreshTime.Time).Round(time.Second))
	err := s.eventually(ctx, tokenLife, "the status tells of the failure", func() (bool, string) {
		if err := s.reload(ctx); err != nil {
			return false, err.Error()
		}
		return apimeta.IsStatusConditionTrue(s.token.Status.Conditions, v1alpha1.ConditionRefreshFailing), "no condition RefreshFailing"
	})
	if err != nil {
		return err
	}
	failing := apimeta.FindStatusCondition(s.token.Status.Conditions, v1alpha1.ConditionRefreshFailing)
	s.step("RefreshFailing (%s), and Ready: the Secret keeps its token", failing.Reason)
	err = s.eventually(ctx, tokenLife, "WeChat has answered errcode -1 twice", func() (bool, string) {
		return s.failures(begin) >= cuts+2, fmt.Sprintf("%d failed calls", s.failures(begin))
	})
	if err != nil {
		return err
	}
	if s.value(ctx) != before {
		return errors.New("the token was touched while WeChat failed")
	}
	failed, over := s.failures(begin), time.Now()
	s.wechat.ClearFaults()
	s.step("WeChat is back after %d failed calls", failed)
	if err := s.untilAnother(ctx, before, tokenLife); err != nil {
		return err
	}
	s.step("outage survived: a new token was in the Secret %s after WeChat was back", since(over))
	return s.eventually(ctx, 5*time.Second, "RefreshFailing is gone", func() (bool, string) {
		if err := s.reload(ctx); err != nil {
			return false, err.Error()
		}
		return apimeta.FindStatusCondition(s.token.Status.Conditions, v1alpha1.ConditionRefreshFailing) == nil, "it is still there"
	})
}

// failures counts the calls since then that brought nothing.
func (s *stage) failures(since time.Time) (n int) {
	for _, c := range s.wechat.Calls(wechattest.Filter{AppID: s.token.Spec.AppID, Since: since}) {
		if c.Fault {
			n++
		}
	}
	return n
}

// summarize tells what the reader saw, and what it cost.
func (s *stage) summarize(context.Context) error {
	s.reader.stop()
	looks, invalid := s.reader.seen()
	requests, err := s.env.Requests(func(r testenv.Request) bool {
		// What the operator tries of the admission policies at its start has another User-Agent.
		return r.User.Username == testenv.OperatorUser && strings.HasPrefix(r.UserAgent, "wechat-token-operator/") &&
			r.Verb != "watch" && r.Verb != "list" &&
			(r.Object.Resource == "secrets" || r.Object.Resource == "wechatapptokens" || r.Object.Resource == "events")
	})
	if err != nil {
		return err
	}
	s.say("")
	s.say("%d tokens issued, %d calls to WeChat, %d requests to the API server.", len(s.wechat.Tokens(s.token.Spec.AppID)),
		s.wechat.Count(wechattest.Filter{AppID: s.token.Spec.AppID}), len(requests))
	s.say("A reader looked into the Secret %d times. Tokens that WeChat did not accept: %d.", looks, invalid)
	if invalid > 0 || looks == 0 {
		return fmt.Errorf("%d of %d looks into the Secret found no valid token", invalid, looks)
	}
	return nil
}

// explain shows the resource when the story ended badly.
func (s *stage) explain(ctx context.Context) {
	if s.env == nil || s.token == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if out, err := s.kubectl(ctx, "describe", "wechatapptoken", s.token.Name); err == nil {
		s.say("\n%s", out)
	}
	if s.relay.client == nil {
		return
	}
	if out, err := s.kubectl(ctx, "describe", "wechatappclient", s.relay.client.Name); err == nil {
		s.say("\n%s", out)
	}
	for _, log := range s.relay.logs(s.dir) {
		s.say("\n%v", logTail(log))
	}
}

func (s *stage) untilAnother(ctx context.Context, value string, within time.Duration) error {
	return s.eventually(ctx, within, "the Secret holds another token", func() (bool, string) {
		now := s.value(ctx)
		return now != value && s.wechat.Valid(now), "the same token"
	})
}

func (s *stage) reload(ctx context.Context) error {
	if err := s.client.Get(ctx, client.ObjectKeyFromObject(s.token), s.token); err != nil {
		return fmt.Errorf("reading the %s: %w", v1alpha1.Kind, err)
	}
	return nil
}

func (s *stage) targetKey() client.ObjectKey {
	return client.ObjectKey{Namespace: namespace, Name: s.token.TargetName()}
}

func (s *stage) target(ctx context.Context) (*corev1.Secret, error) {
	secret := &corev1.Secret{}
	return secret, s.client.Get(ctx, s.targetKey(), secret)
}

// value is the token in the Secret; "" without one.
func (s *stage) value(ctx context.Context) string {
	secret, err := s.target(ctx)
	if err != nil {
		return ""
	}
	return string(secret.Data[s.token.Spec.Target.AccessTokenKey])
}

// issued finds a token in the ledger.
func (s *stage) issued(value string) (wechattest.IssuedToken, error) {
	for _, t := range s.wechat.Tokens(s.token.Spec.AppID) {
		if t.Token == value {
			return t, nil
		}
	}
	return wechattest.IssuedToken{}, errors.New("the Secret held a token that WeChat never issued")
}

// kstatus is what GitOps tools make of the resource.
func (s *stage) kstatus(ctx context.Context) (status.Status, error) {
	if err := s.reload(ctx); err != nil {
		return "", err
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(s.token)
	if err != nil {
		return "", fmt.Errorf("converting the %s: %w", v1alpha1.Kind, err)
	}
	result, err := status.Compute(&unstructured.Unstructured{Object: content})
	if err != nil {
		return "", fmt.Errorf("computing kstatus: %w", err)
	}
	return result.Status, nil
}

func readSample(path string) ([]*unstructured.Unstructured, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening the sample: %w", err)
	}
	defer file.Close() //nolint:errcheck // read only
	var out []*unstructured.Unstructured
	for decoder := yaml.NewYAMLOrJSONDecoder(bufio.NewReader(file), 4096); ; {
		o := &unstructured.Unstructured{}
		switch err := decoder.Decode(o); {
		case errors.Is(err, io.EOF):
			return out, nil
		case err != nil:
			return nil, fmt.Errorf("reading the sample %s: %w", path, err)
		case len(o.Object) > 0:
			out = append(out, o)
		}
	}
}

func since(t time.Time) time.Duration { return time.Since(t).Round(time.Millisecond) }
