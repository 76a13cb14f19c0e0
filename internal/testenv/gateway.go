// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

const (
	// GatewayNamespace is the namespace of the gateway's ServiceAccount.
	GatewayNamespace = "wechat-token-operator-system"
	// GatewayAccount is the name of the gateway's ServiceAccount.
	GatewayAccount = "wechat-token-operator-gateway"
)

// gatewayRights are the files of config/gateway that say what the gateway may do. The others there need a cluster with nodes.
func gatewayRights() []string {
	return []string{"service_account", "role", "review_role", "role_binding", "policy", "binding"}
}

// Gateway installs the gateway's rights in all namespaces as config/gateway has them, and returns a config with these rights. It may be
// called once. The name is the User-Agent of the requests.
func (e *Environment) Gateway(ctx context.Context, name string) (*rest.Config, error) {
	c, err := client.New(e.Config, client.Options{})
	if err != nil {
		return nil, fmt.Errorf("connecting to the control plane: %w", err)
	}
	if err := c.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: GatewayNamespace}}); err != nil {
		return nil, fmt.Errorf("creating the gateway's namespace: %w", err)
	}
	for _, file := range gatewayRights() {
		raw, err := os.ReadFile(filepath.Join(repository(), "config", "gateway", file+".yaml"))
		if err != nil {
			return nil, fmt.Errorf("reading the gateway's rights: %w", err)
		}
		for document := range bytes.SplitSeq(raw, []byte("\n---\n")) {
			object := &unstructured.Unstructured{}
			if err := yaml.Unmarshal(document, &object.Object); err != nil {
				return nil, fmt.Errorf("decoding %s.yaml of the gateway: %w", file, err)
			}
			if err := c.Create(ctx, object); err != nil {
				return nil, fmt.Errorf("installing %s.yaml of the gateway: %w", file, err)
			}
		}
	}
	config, err := e.account(ctx, GatewayNamespace, GatewayAccount, name)
	if err != nil {
		return nil, err
	}
	return config, awaitRights(ctx, config, "list", metav1.NamespaceAll)
}
