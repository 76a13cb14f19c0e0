// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

const samples = "../../config/samples"

// TestSamples: every sample is accepted as it is, brings its credentials, and is listed for kubectl apply -k.
func TestSamples(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(samples, "kustomization.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	kustomization := struct {
		Resources []string `json:"resources"`
	}{}
	if err := yaml.UnmarshalStrict(raw, &kustomization); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(samples, "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		if name == "kustomization.yaml" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			if !slices.Contains(kustomization.Resources, name) {
				t.Error("not listed in kustomization.yaml")
			}
			sampleIsAccepted(t, file)
		})
	}
	if len(files) != len(kustomization.Resources)+1 {
		t.Errorf("kustomization.yaml lists %v", kustomization.Resources)
	}
}

func sampleIsAccepted(t *testing.T, file string) {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	secrets, needed := map[string]bool{}, map[string]bool{}
	decoder := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(raw), 4096)
	for {
		u := &unstructured.Unstructured{}
		if err := decoder.Decode(u); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if u.GetNamespace() != "" {
			t.Errorf("%s %s chooses a namespace for the user", u.GetKind(), u.GetName())
		}
		u.SetNamespace(metav1.NamespaceDefault)
		if err := api.Create(t.Context(), u, client.DryRunAll, client.FieldValidation(metav1.FieldValidationStrict)); err != nil {
			t.Errorf("%s %s: %v", u.GetKind(), u.GetName(), err)
			continue
		}
		switch u.GetKind() {
		case "Secret":
			data, _, err := unstructured.NestedMap(u.Object, "data")
			if err != nil {
				t.Fatal(err)
			}
			for key := range data {
				secrets[u.GetName()+"/"+key] = true
			}
		case v1alpha1.Kind:
			ref := decode(t, u).Spec.CredentialsSecretRef
			needed[ref.Name+"/"+ref.Key] = true
		}
	}
	if len(needed) == 0 {
		t.Error("no WeChatAppToken")
	}
	for ref := range needed {
		if !secrets[ref] {
			t.Errorf("the credentials %s are not in the sample, which has %v", ref, secrets)
		}
	}
}
