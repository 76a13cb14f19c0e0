// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/http"

	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// newMapper returns a mapper that knows the four kinds that the operator reads and writes. It asks the API server nothing, so
// that the operator can start while the API server is away or the CRD is missing.
func newMapper(*rest.Config, *http.Client) (apimeta.RESTMapper, error) {
	mapper := apimeta.NewDefaultRESTMapper(nil)
	for _, kind := range []schema.GroupVersionKind{
		v1alpha1.GroupVersion.WithKind(v1alpha1.Kind),
		v1alpha1.GroupVersion.WithKind(v1alpha1.ClientKind),
		corev1.SchemeGroupVersion.WithKind("Secret"),
		corev1.SchemeGroupVersion.WithKind("Pod"),
	} {
		mapper.Add(kind, apimeta.RESTScopeNamespace)
		// A cache for a list of namespaces looks up the scope of lists.
		mapper.Add(kind.GroupVersion().WithKind(kind.Kind+"List"), apimeta.RESTScopeNamespace)
	}
	return mapper, nil
}
