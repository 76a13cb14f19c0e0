// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat"
)

// plainWorkers is what the goals were set with.
const plainWorkers = 16

// plainLoop does the least that gives a resource its token: one WeChat call, one Secret POST, one status PATCH. It looks
// at nothing, remembers nothing and handles no error: it is the measure of the machine and its API server.
type plainLoop struct {
	count   int
	secrets kubernetes.Interface
	tokens  dynamic.NamespaceableResourceInterface
	wechat  *wechat.Client
}

// runPlain is the program "bench plain".
func runPlain(ctx context.Context, args []string, stderr io.Writer) error {
	var kubeconfig, endpoint, ca string
	var count int
	flags := flag.NewFlagSet("plain", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&kubeconfig, "kubeconfig", "", "access to the API server")
	flags.StringVar(&endpoint, "wechat-endpoint", "", "URL of the stand-in for WeChat")
	flags.StringVar(&ca, "wechat-ca-file", "", "its certificate authority")
	flags.IntVar(&count, "count", 0, "number of resources")
	if err := flags.Parse(args); err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return fmt.Errorf("reading the kubeconfig: %w", err)
	}
	loop, err := newPlainLoop(config, endpoint, ca, count)
	if err != nil {
		return err
	}
	if err := loop.run(ctx); err != nil {
		return err
	}
	// The harness reads this process's CPU time before it ends it.
	<-ctx.Done()
	return nil
}

func newPlainLoop(config *rest.Config, endpoint, ca string, count int) (*plainLoop, error) {
	config.QPS = -1
	config.UserAgent = "plain-loop"
	protobuf := rest.CopyConfig(config)
	protobuf.ContentType = "application/vnd.kubernetes.protobuf"
	secrets, err := kubernetes.NewForConfig(protobuf)
	if err != nil {
		return nil, err
	}
	tokens, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	api, err := wechat.New(wechat.Options{
		Endpoints: []string{endpoint}, CAFile: ca, Timeout: 5 * time.Second, MaxInFlight: plainWorkers, UserAgent: "plain-loop",
	})
	if err != nil {
		return nil, err
	}
	return &plainLoop{count: count, secrets: secrets, tokens: tokens.Resource(tokenResource), wechat: api}, nil
}

func (l *plainLoop) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(plainWorkers)
	for i := range l.count {
		group.Go(func() error { return l.one(ctx, appOf(i)) })
	}
	return group.Wait()
}

func (l *plainLoop) one(ctx context.Context, a app) error {
	token, err := l.wechat.StableToken(ctx, a.credentials(), false)
	if err != nil {
		return err
	}
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Name: a.name, Namespace: a.namespace,
			Labels:      map[string]string{v1alpha1.LabelManagedBy: v1alpha1.ManagedByValue},
			Annotations: map[string]string{v1alpha1.AnnotationTokenFingerprint: token.Value.Fingerprint()},
		},
		Data: map[string][]byte{v1alpha1.DefaultAccessTokenKey: []byte(token.Value.Reveal())},
	}
	secret, err = l.secrets.CoreV1().Secrets(a.namespace).Create(ctx, secret, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	status, err := json.Marshal(map[string]any{"status": map[string]any{
		"targetSecretName": a.name, "targetResourceVersion": secret.ResourceVersion,
		"conditions": []metav1.Condition{{
			Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonTokenValid,
			Message: strings.Repeat("m", 80), LastTransitionTime: metav1.Now(),
		}},
	}})
	if err != nil {
		return err
	}
	_, err = l.tokens.Namespace(a.namespace).Patch(ctx, a.name, types.MergePatchType, status, metav1.PatchOptions{}, "status")
	return err
}
