// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

func TestMounts(t *testing.T) {
	const volume, mounted = `
volumes: [{name: v, secret: {secretName: token}}]
`, `
containers: [{name: app, volumeMounts: [{name: v, mountPath: /a}]}]
`
	for name, test := range map[string]struct {
		spec string
		want bool
	}{
		"a secret volume":     {volume + mounted, true},
		"a projected volume":  {"volumes: [{name: v, projected: {sources: [{configMap: {name: token}}, {secret: {name: token}}]}}]" + mounted, true},
		"not mounted":         {volume + "containers: [{name: app}]", false},
		"by subPath":          {volume + "containers: [{name: app, volumeMounts: [{name: v, mountPath: /a, subPath: x}]}]", false},
		"by subPathExpr":      {volume + "containers: [{name: app, volumeMounts: [{name: v, mountPath: /a, subPathExpr: x}]}]", false},
		"by subPath and not":  {volume + "containers: [{name: app, volumeMounts: [{name: v, mountPath: /a, subPath: x}, {name: v, mountPath: /b}]}]", true},
		"in the second one":   {volume + "containers: [{name: a}, {name: b, volumeMounts: [{name: v, mountPath: /a}]}]", true},
		"in a sidecar":        {volume + "initContainers: [{name: a, restartPolicy: Always, volumeMounts: [{name: v, mountPath: /a}]}]", true},
		"in an init":          {volume + "initContainers: [{name: a, volumeMounts: [{name: v, mountPath: /a}]}]", false},
		"in an ephemeral one": {volume + "ephemeralContainers: [{name: a, volumeMounts: [{name: v, mountPath: /a}]}]", false},
		"another Secret":      {"volumes: [{name: v, secret: {secretName: other}}]" + mounted, false},
		"a ConfigMap":         {"volumes: [{name: v, configMap: {name: token}}]" + mounted, false},
		"in the environment":  {"containers: [{name: app, envFrom: [{secretRef: {name: token}}]}]", false},
		"another volume":      {"volumes: [{name: v, emptyDir: {}}, {name: w, secret: {secretName: token}}]" + mounted, false},
		"nothing":             {"", false},
	} {
		spec := &corev1.PodSpec{}
		if err := yaml.UnmarshalStrict([]byte(test.spec), spec); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := Mounts(spec, "token"); got != test.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
