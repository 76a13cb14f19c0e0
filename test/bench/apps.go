// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

const (
	// appsPerNamespace: a team has some apps, a cluster has many teams.
	appsPerNamespace = 100
	// populateWorkers create what a run needs before it is measured.
	populateWorkers = 16
)

var tokenResource = v1alpha1.GroupVersion.WithResource("wechatapptokens")

// app is one WeChat account and the names that it has in the cluster.
type app struct {
	id, secret, name, namespace string
}

// appOf is the i-th app, the same in every run.
func appOf(i int) app {
	return app{
		id:        fmt.Sprintf("wx%016x", i),
		secret:    fmt.Sprintf("%032x", i+1),
		name:      fmt.Sprintf("app-%06d", i),
		namespace: fmt.Sprintf("bench-%04d", i/appsPerNamespace),
	}
}

func (a app) key() types.NamespacedName {
	return types.NamespacedName{Namespace: a.namespace, Name: a.name}
}

func (a app) credentialsName() string { return a.name + "-wechat" }

func (a app) credentials() token.Credentials {
	return token.Credentials{AppID: a.id, AppSecret: token.NewValue(a.secret)}
}

// token is the resource of the app. A zero interval is the default of the CRD.
func (a app) token(interval time.Duration) *v1alpha1.WeChatAppToken {
	return &v1alpha1.WeChatAppToken{
		ObjectMeta: metav1.ObjectMeta{Name: a.name, Namespace: a.namespace},
		Spec: v1alpha1.WeChatAppTokenSpec{
			AppID:                a.id,
			CredentialsSecretRef: v1alpha1.CredentialsSecretReference{Name: a.credentialsName()},
			CheckInterval:        metav1.Duration{Duration: interval},
		},
	}
}

// defaultInterval is the CRD's default of checkInterval.
const defaultInterval = 2 * time.Minute

// populate creates n apps with their namespaces and credentials.
func (s *stage) populate(ctx context.Context, n int) error {
	if err := s.addNamespaces(ctx, n); err != nil {
		return err
	}
	return parallel(ctx, n, func(ctx context.Context, i int) error { return s.add(ctx, appOf(i), defaultInterval) })
}

func (s *stage) addNamespaces(ctx context.Context, n int) error {
	for i := 0; i < n; i += appsPerNamespace {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: appOf(i).namespace}}
		if err := client.IgnoreAlreadyExists(s.client.Create(ctx, ns)); err != nil {
			return fmt.Errorf("creating namespace %s: %w", ns.Name, err)
		}
	}
	return nil
}

func (s *stage) add(ctx context.Context, a app, interval time.Duration) error {
	if err := s.client.Create(ctx, credentialsOf(a)); err != nil {
		return fmt.Errorf("creating the credentials of %s: %w", a.name, err)
	}
	if err := s.client.Create(ctx, a.token(interval)); err != nil {
		return fmt.Errorf("creating WeChatAppToken %s: %w", a.name, err)
	}
	return nil
}

// parallel calls do for each number below n.
func parallel(ctx context.Context, n int, do func(ctx context.Context, i int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(populateWorkers)
	for i := range n {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error { return do(ctx, i) })
	}
	return group.Wait()
}
