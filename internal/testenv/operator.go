// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

const (
	// OperatorNamespace is the namespace of the operator's ServiceAccount, where it may elect a leader.
	OperatorNamespace = "system"
	// OperatorUser is the name of the operator's ServiceAccount in the audit log.
	OperatorUser = "system:serviceaccount:" + OperatorNamespace + ":" + operatorAccount

	operatorAccount = "controller-manager"
	// tokenSeconds is the life of a ServiceAccount's token, a day, which is longer than any test.
	tokenSeconds = 24 * 60 * 60
)

// installRights creates the objects of config/rbac as they are, without the namespace and the name prefix that kustomize adds.
func (e *Environment) installRights(ctx context.Context) error {
	c, err := client.New(e.Config, client.Options{})
	if err != nil {
		return fmt.Errorf("connecting to the control plane: %w", err)
	}
	if err := c.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: OperatorNamespace}}); err != nil {
		return fmt.Errorf("creating the operator's namespace: %w", err)
	}
	dir := filepath.Join(repository(), "config", "rbac")
	var list struct{ Resources []string }
	if err := decode(filepath.Join(dir, "kustomization.yaml"), &list); err != nil {
		return err
	}
	for _, file := range list.Resources {
		object := &unstructured.Unstructured{}
		if err := decode(filepath.Join(dir, file), &object.Object); err != nil {
			return err
		}
		if err := c.Create(ctx, object); err != nil {
			return fmt.Errorf("installing %s: %w", file, err)
		}
	}
	config, err := e.Operator(ctx, "testenv")
	if err != nil {
		return err
	}
	return awaitRights(ctx, config, "create", metav1.NamespaceAll)
}

// awaitRights waits until the API server grants a right on Secrets, which comes with all others, in these namespaces. It learns of
// bindings by a watch, with some delay.
func awaitRights(ctx context.Context, config *rest.Config, verb string, namespaces ...string) error {
	c, err := client.New(config, client.Options{})
	if err != nil {
		return fmt.Errorf("connecting with the new rights: %w", err)
	}
	for _, ns := range namespaces {
		review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
			ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: ns, Resource: "secrets", Verb: verb},
		}}
		err := wait.PollUntilContextTimeout(ctx, 5*time.Millisecond, 10*time.Second, true, func(ctx context.Context) (bool, error) {
			err := c.Create(ctx, review)
			return review.Status.Allowed, err
		})
		if err != nil {
			return fmt.Errorf("waiting for the right to %s Secrets in %q: %w", verb, ns, err)
		}
	}
	return nil
}

func decode(path string, into any) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading the operator's rights: %w", err)
	}
	if err := yaml.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("decoding %s: %w", path, err)
	}
	return nil
}

// Operator returns a config with the rights of an operator that serves all namespaces, which are those that config/rbac grants to its
// ServiceAccount. The name is the User-Agent of its requests.
func (e *Environment) Operator(ctx context.Context, name string) (*rest.Config, error) {
	return e.account(ctx, OperatorNamespace, operatorAccount, name)
}

// NamespacedOperator returns a config with the rights of an operator that serves some namespaces, as docs/namespaces.md installs it. It
// has a ServiceAccount of its own, to which the operator's role is bound in these namespaces only.
func (e *Environment) NamespacedOperator(ctx context.Context, name string, namespaces ...string) (*rest.Config, error) {
	c, err := client.New(e.Config, client.Options{})
	if err != nil {
		return nil, fmt.Errorf("connecting to the control plane: %w", err)
	}
	errs := []error{c.Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: OperatorNamespace, Name: name}})}
	for _, ns := range namespaces {
		errs = append(errs, c.Create(ctx, &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "manager-role"},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: OperatorNamespace, Name: name}},
		}))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("giving %s its rights: %w", name, err)
	}
	config, err := e.account(ctx, OperatorNamespace, name, name)
	if err != nil {
		return nil, err
	}
	return config, awaitRights(ctx, config, "create", namespaces...)
}

// account returns a config with a token of a ServiceAccount.
func (e *Environment) account(ctx context.Context, namespace, account, userAgent string) (*rest.Config, error) {
	c, err := client.New(e.Config, client.Options{})
	if err != nil {
		return nil, fmt.Errorf("connecting to the control plane: %w", err)
	}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: new(int64(tokenSeconds))}}
	owner := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: account}}
	if err := c.SubResource("token").Create(ctx, owner, request); err != nil {
		return nil, fmt.Errorf("asking for a token of %s: %w", account, err)
	}
	config := rest.AnonymousClientConfig(e.Config)
	config.BearerToken, config.UserAgent, config.QPS = request.Status.Token, userAgent, -1
	return config, nil
}

// OperatorKubeConfig returns a kubeconfig with the rights of Operator, for another process, which sets its own User-Agent.
func (e *Environment) OperatorKubeConfig(ctx context.Context) ([]byte, error) {
	config, err := e.Operator(ctx, "")
	if err != nil {
		return nil, err
	}
	return KubeConfigOf(config)
}

// KubeConfigOf returns a kubeconfig with what a config of Operator, NamespacedOperator or Gateway holds.
func KubeConfigOf(config *rest.Config) ([]byte, error) {
	out := clientcmdapi.NewConfig()
	out.Clusters["c"] = &clientcmdapi.Cluster{Server: config.Host, CertificateAuthorityData: config.CAData}
	out.AuthInfos["u"] = &clientcmdapi.AuthInfo{Token: config.BearerToken}
	out.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	out.CurrentContext = "x"
	raw, err := clientcmd.Write(*out)
	if err != nil {
		return nil, fmt.Errorf("writing the operator's kubeconfig: %w", err)
	}
	return raw, nil
}
