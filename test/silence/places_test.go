// SPDX-License-Identifier: Apache-2.0

package silence

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
)

// places are everything that the process shows, by name. The process is ended.
func (p *process) places(t *testing.T, namespace string) map[string]string {
	t.Helper()
	out := map[string]string{"environ": p.proc(t, "environ"), "cmdline": p.proc(t, "cmdline"), "comm": p.proc(t, "comm")}
	out["metrics"] = fetch(t.Context(), p.metrics)
	out["probes"] = fetch(t.Context(), p.healthy+"/readyz?verbose") + fetch(t.Context(), p.healthy+"/healthz?verbose")
	out["dump"] = p.dump(t)
	out["stdout"], out["stderr"] = read(t, p.out), strings.TrimSuffix(read(t, p.err), out["dump"])
	objects(t, namespace, out)
	requests, err := env.Requests(func(testenv.Request) bool { return true })
	must(t, err)
	audit, err := json.Marshal(requests)
	must(t, err)
	out["audit"] = string(audit)
	return out
}

// objects adds all objects of a namespace, of the operator's and of none, by resource, without the data that is meant to hold secrets.
func objects(t *testing.T, namespace string, out map[string]string) {
	t.Helper()
	disco, err := discovery.NewDiscoveryClientForConfig(env.Config)
	must(t, err)
	lists, err := disco.ServerPreferredResources()
	must(t, err)
	dyn, err := dynamic.NewForConfig(env.Config)
	must(t, err)
	for _, list := range lists {
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		must(t, err)
		for _, resource := range list.APIResources {
			if !slices.Contains(resource.Verbs, "list") {
				continue
			}
			all, err := dyn.Resource(version.WithResource(resource.Name)).List(t.Context(), metav1.ListOptions{})
			if apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err) {
				continue
			}
			must(t, err)
			var text strings.Builder
			for i := range all.Items {
				if in := all.Items[i].GetNamespace(); in != "" && in != namespace && in != testenv.OperatorNamespace {
					continue // another test's
				}
				if resource.Name == "secrets" {
					withoutData(&all.Items[i])
				}
				raw, err := all.Items[i].MarshalJSON()
				must(t, err)
				text.Write(raw)
			}
			out[resource.Name+"."+version.Group] += text.String()
		}
	}
}

// withoutData removes the AppSecret from what people wrote, and the token or a client's keys from where the operator has to put them. What
// else the operator wrote stays.
func withoutData(secret *unstructured.Unstructured) {
	if secret.GetLabels()[v1alpha1.LabelManagedBy] == "" {
		delete(secret.Object, "data")
		return
	}
	if secret.GetAnnotations()[v1alpha1.AnnotationOwnerKind] == v1alpha1.ClientKind {
		unstructured.RemoveNestedField(secret.Object, "data", v1alpha1.AppSecretKey)
		unstructured.RemoveNestedField(secret.Object, "data", v1alpha1.PreviousAppSecretKey)
		return
	}
	unstructured.RemoveNestedField(secret.Object, "data", tokenKey)
}
