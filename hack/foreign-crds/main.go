// SPDX-License-Identifier: Apache-2.0

// Command foreign-crds writes the CRDs of other projects, against which the tests check manifests of their kinds. It takes
// them from pinned Go modules and leaves out the descriptions and the versions that nobody uses here.
//
//	go run ./hack/foreign-crds test/testdata/foreign-crds
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"sigs.k8s.io/yaml"
)

// source is one CRD in a module. All of these modules are under the Apache License 2.0.
type source struct {
	module, path, version string
}

func sources() []source {
	const (
		prometheus = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
		argo       = "github.com/argoproj/argo-cd/v3@v3.5.7"
		flux       = "github.com/fluxcd/kustomize-controller@v1.9.6"
		manager    = "github.com/cert-manager/cert-manager@v1.18.2"
		external   = "github.com/external-secrets/external-secrets@v1.3.2"
	)
	return []source{
		{prometheus, "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml", "v1"},
		{prometheus, "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml", "v1"},
		{argo, "manifests/crds/application-crd.yaml", "v1alpha1"},
		{flux, "config/crd/bases/kustomize.toolkit.fluxcd.io_kustomizations.yaml", "v1"},
		{manager, "deploy/crds/crd-certificates.yaml", "v1"},
		{manager, "deploy/crds/crd-issuers.yaml", "v1"},
		{external, "config/crds/bases/external-secrets.io_externalsecrets.yaml", "v1"},
	}
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: foreign-crds FOLDER")
		os.Exit(2)
	}
	for _, s := range sources() {
		if err := s.write(os.Args[1]); err != nil {
			fmt.Fprintf(os.Stderr, "foreign-crds: %s: %v\n", s.path, err)
			os.Exit(1)
		}
	}
}

func (s source) write(to string) error {
	out, err := exec.Command("go", "mod", "download", "-json", s.module).Output() //nolint:gosec,noctx // pinned above
	if err != nil {
		return fmt.Errorf("downloading: %w: %s", err, out)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		return err
	}
	raw, err := os.ReadFile(filepath.Join(module.Dir, filepath.FromSlash(s.path)))
	if err != nil {
		return err
	}
	var crd struct {
		APIVersion string         `json:"apiVersion"`
		Kind       string         `json:"kind"`
		Metadata   map[string]any `json:"metadata"`
		Spec       map[string]any `json:"spec"`
	}
	if err := yaml.Unmarshal(raw, &crd); err != nil {
		return err
	}
	if err := s.trim(crd.Spec); err != nil {
		return err
	}
	crd.Metadata = map[string]any{"name": crd.Metadata["name"], "annotations": crd.Metadata["annotations"]}
	trimmed, err := yaml.Marshal(crd)
	if err != nil {
		return err
	}
	head := fmt.Sprintf("# From %s, %s, under the Apache License 2.0, trimmed by hack/foreign-crds; do not edit.\n", s.module, s.path)
	return os.WriteFile(filepath.Join(to, filepath.Base(s.path)), append([]byte(head), trimmed...), 0o600)
}

// trim keeps one version and what the API server checks.
func (s source) trim(spec map[string]any) error {
	delete(spec, "conversion") // there is no webhook to ask, and one version needs none
	versions, ok := spec["versions"].([]any)
	if !ok {
		return errors.New("the CRD has no versions")
	}
	for _, v := range versions {
		version, ok := v.(map[string]any)
		if !ok || version["name"] != s.version {
			continue
		}
		version["storage"] = true
		dropDescriptions(version["schema"])
		spec["versions"] = []any{version}
		return nil
	}
	return fmt.Errorf("the CRD has no version %s", s.version)
}

// dropDescriptions removes the texts of a schema, and no field that is called description: that one is a map.
func dropDescriptions(schema any) {
	switch v := schema.(type) {
	case map[string]any:
		if _, text := v["description"].(string); text {
			delete(v, "description")
		}
		for _, inner := range v {
			dropDescriptions(inner)
		}
	case []any:
		for _, inner := range v {
			dropDescriptions(inner)
		}
	}
}
