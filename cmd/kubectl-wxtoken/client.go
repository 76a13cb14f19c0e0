// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	// The auth-providers that a kubeconfig may name, as kubectl has them.
	_ "k8s.io/client-go/plugin/pkg/client/auth"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// fieldManager is the name of this plugin in managedFields.
const fieldManager = "kubectl-wxtoken"

// cluster is a client of the API server that kubectl's flags choose.
type cluster struct {
	client.WithWatch

	// namespace is that of --namespace, or of the kubeconfig's context.
	namespace string
	// explicit reports whether --namespace or the kubeconfig names the namespace.
	explicit bool
}

// connect returns a client for the cluster that kubectl's flags choose. It makes no request.
func (a *app) connect() (*cluster, error) {
	config, err := a.flags.ToRESTConfig()
	if err != nil {
		return nil, explain(err, "find the cluster")
	}
	namespace, explicit, err := a.flags.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return nil, explain(err, "read the kubeconfig")
	}
	config = rest.CopyConfig(config)
	config.UserAgent = fieldManager + "/" + version
	config.WarningHandler = rest.NoWarnings{}
	// A command makes few requests, and the API server has its own limits.
	config.QPS = -1
	c, err := client.NewWithWatch(config, client.Options{Scheme: newScheme(), Mapper: mapper()})
	if err != nil {
		return nil, explain(err, "set up the connection")
	}
	return &cluster{WithWatch: c, namespace: namespace, explicit: explicit}, nil
}

func newScheme() *runtime.Scheme {
	s := runtime.NewScheme()
	err := errors.Join(corev1.AddToScheme(s), appsv1.AddToScheme(s), coordinationv1.AddToScheme(s), v1alpha1.AddToScheme(s))
	if err != nil {
		panic(err) // only a bug in this program can register two kinds under one name
	}
	return s
}

// mapper returns a mapper that knows the few kinds that are read here, so that no command needs discovery.
func mapper() apimeta.RESTMapper {
	m := apimeta.NewDefaultRESTMapper(nil)
	for _, gvk := range []schema.GroupVersionKind{
		v1alpha1.GroupVersion.WithKind(v1alpha1.Kind),
		v1alpha1.GroupVersion.WithKind(v1alpha1.ClientKind),
		corev1.SchemeGroupVersion.WithKind("Secret"),
		corev1.SchemeGroupVersion.WithKind("Event"),
		corev1.SchemeGroupVersion.WithKind("Pod"),
		appsv1.SchemeGroupVersion.WithKind("Deployment"),
		coordinationv1.SchemeGroupVersion.WithKind("Lease"),
	} {
		m.Add(gvk, apimeta.RESTScopeNamespace)
	}
	m.Add(corev1.SchemeGroupVersion.WithKind("Namespace"), apimeta.RESTScopeRoot)
	m.Add(crdKind, apimeta.RESTScopeRoot)
	return m
}

// crdKind is the kind of a CRD. Only its metadata is read.
var crdKind = schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"}

// find connects to the cluster and reads the resource that an argument names.
func (a *app) find(ctx context.Context, arg string) (*cluster, *v1alpha1.WeChatAppToken, error) {
	name, err := bareName(arg)
	if err != nil {
		return nil, nil, err
	}
	c, err := a.connect()
	if err != nil {
		return nil, nil, err
	}
	t, err := c.get(ctx, name)
	return c, t, err
}

// bareName returns the name in an argument, which may also have the form that -o name prints,
// wechatapptoken.wechat.apptoken.dev/shop.
func bareName(arg string) (string, error) {
	kind, name, found := strings.Cut(arg, "/")
	if !found {
		return arg, nil
	}
	kind, _, _ = strings.Cut(strings.ToLower(kind), ".")
	switch kind {
	case "wxtoken", "wechatapptoken", "wechatapptokens":
		return name, nil
	}
	return "", usage("%q is not a WeChatAppToken: give a name such as shop or wxtoken/shop", arg)
}

// in returns the same client for another namespace.
func (c *cluster) in(namespace string) *cluster {
	other := *c
	other.namespace = namespace
	return &other
}

// get reads a WeChatAppToken in the chosen namespace.
func (c *cluster) get(ctx context.Context, name string) (*v1alpha1.WeChatAppToken, error) {
	t := &v1alpha1.WeChatAppToken{}
	err := c.Get(ctx, client.ObjectKey{Namespace: c.namespace, Name: name}, t)
	if apierrors.IsNotFound(err) && !missingKind(err) {
		return nil, failed("-n chooses another namespace. This shows those that exist:\nkubectl wxtoken list -A",
			"namespace %q has no WeChatAppToken %q", c.namespace, name)
	}
	return t, explain(err, fmt.Sprintf("read WeChatAppToken %q", name))
}

// list reads the WeChatAppTokens of a namespace, or of all namespaces if it is empty.
func (c *cluster) list(ctx context.Context, namespace string, opts ...client.ListOption) (*v1alpha1.WeChatAppTokenList, error) {
	l := &v1alpha1.WeChatAppTokenList{}
	err := c.List(ctx, l, append(opts, client.InNamespace(namespace))...)
	return l, explain(err, "list WeChatAppTokens"+ofNamespace(namespace))
}

func ofNamespace(namespace string) string {
	if namespace == "" {
		return " of all namespaces"
	}
	return fmt.Sprintf(" of namespace %q", namespace)
}

// targetMetadata returns the metadata of the target Secret, or nil if there is no such Secret. The API server does not send the
// data.
func (c *cluster) targetMetadata(ctx context.Context, t *v1alpha1.WeChatAppToken) (*metav1.PartialObjectMetadata, error) {
	m := &metav1.PartialObjectMetadata{}
	m.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
	err := c.Get(ctx, client.ObjectKey{Namespace: t.Namespace, Name: t.TargetName()}, m)
	if apierrors.IsNotFound(err) {
		return nil, nil //nolint:nilnil // nil stands for no Secret
	}
	return m, explain(err, fmt.Sprintf("read the annotations of Secret %q", t.TargetName()))
}

// patch makes a change to a resource by a JSON merge patch, and updates t to the result.
func (c *cluster) patch(ctx context.Context, t *v1alpha1.WeChatAppToken, change func(*v1alpha1.WeChatAppToken)) error {
	next := t.DeepCopy()
	change(next)
	if err := c.Patch(ctx, next, client.MergeFrom(t), client.FieldOwner(fieldManager)); err != nil {
		return explain(err, fmt.Sprintf("change WeChatAppToken %q", t.Name))
	}
	*t = *next
	return nil
}
