// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"bytes"
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/yaml"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// everything sets as many values as possible.
const everything = `
commonLabels: {team: platform}
image: {digest: "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", pullPolicy: Always}
imagePullSecrets: [{name: registry}]
watch: {namespaces: [shop, blog], labelSelector: "shard in (a,b)"}
requireCredentialsLabel: true
promptDelivery: {enabled: true}
wechat:
  endpoints: ["https://hk.api.weixin.qq.com"]
  caBundle: {inline: "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"}
proxy: {httpsProxy: "http://proxy.example.com:3128", noProxy: [example.com]}
extraArgs: ["--zap-log-level=debug"]
extraEnv: [{name: GODEBUG, value: http2client=0}]
extraVolumes: [{name: scratch, emptyDir: {}}]
extraVolumeMounts: [{name: scratch, mountPath: /scratch}]
serviceAccount: {annotations: {a: b}}
admissionPolicy: {enabled: true}
metrics:
  service: {annotations: {a: b}}
  certificate: {secretName: metrics-cert}
networkPolicy: {egress: {enabled: true}}
dnsConfig: {options: [{name: ndots, value: "1"}]}
hostAliases: [{ip: 10.0.0.1, hostnames: [api.weixin.qq.com]}]
deploymentAnnotations: {a: b}
podAnnotations: {a: b}
podLabels: {a: b}
priorityClassName: system-cluster-critical
nodeSelector: {a: b}
tolerations: [{key: a, operator: Exists}]
affinity: {nodeAffinity: {}}
dnsPolicy: Default
strategy: {type: Recreate}
revisionHistoryLimit: 2
livenessProbe: {failureThreshold: 5}
readinessProbe: {failureThreshold: 5}
log: {level: debug, format: console}
`

// render gives the chart's objects, by kind and name.
func render(t *testing.T, name, namespace, values string, more ...string) map[string][]byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(path, []byte(values), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"template", name, chartDir, "-n", namespace, "--set", "image.repository=" + image, "-f", path}
	cmd := exec.CommandContext(t.Context(), os.Getenv("HELM"), append(args, more...)...) //nolint:gosec // our helm
	errs := &bytes.Buffer{}
	cmd.Stderr = errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("helm template: %v: %s", err, errs)
	}
	return split(t, out)
}

func split(t *testing.T, stream []byte) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for doc := range strings.SplitSeq("\n"+string(stream), "\n---\n") {
		o := struct {
			Kind     string
			Metadata struct{ Name, Namespace string }
		}{}
		if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
			t.Fatal(err)
		}
		if o.Kind == "" {
			continue
		}
		key := o.Kind + " " + o.Metadata.Name
		if _, twice := out[key]; twice {
			key += " in " + o.Metadata.Namespace
		}
		out[key] = []byte(doc)
	}
	return out
}

// kubectl apply -f dist/install.yaml and helm install give the same objects, but for the Namespace and the labels and
// annotations by which Helm knows its own.
func TestSameAsInstallYAML(t *testing.T) {
	writeInstaller(t)
	installer, err := os.ReadFile("../../dist/install.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want, got := split(t, installer), render(t, release, releaseSystem, "")
	sameAsChart(t, "install.yaml", want, got)
}

// sameAsChart compares the objects of another rendering with the chart's, which leaves the Namespace to Helm.
func sameAsChart(t *testing.T, other string, want, got map[string][]byte) {
	t.Helper()
	delete(want, "Namespace "+releaseSystem)
	if a, b := slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got)); !slices.Equal(a, b) {
		t.Fatalf("%s has\n%s\nand the chart\n%s", other, strings.Join(a, "\n"), strings.Join(b, "\n"))
	}
	for key := range want {
		if a, b := normalised(t, want[key]), normalised(t, got[key]); a != b {
			t.Errorf("%s: %s has\n%s\nand the chart\n%s", key, other, a, b)
		}
	}
}

// TestSameAsOptionalParts: what config/ has to be applied by itself is in the chart behind a value, with the same spec.
func TestSameAsOptionalParts(t *testing.T) {
	chart := render(t, release, releaseSystem, `
admissionPolicy: {enabled: true}
networkPolicy: {egress: {enabled: true}}
metrics: {certificate: {secretName: metrics-server-cert}, serviceMonitor: {enabled: true}, prometheusRule: {enabled: true}}
`+gatewayValues)
	for file, name := range map[string]string{
		"admission-policy/policy.yaml":              "ValidatingAdmissionPolicy " + release + "-secrets",
		"admission-policy/binding.yaml":             "ValidatingAdmissionPolicyBinding " + release + "-secrets",
		"prometheus/monitor.yaml":                   "ServiceMonitor " + release + "-controller-manager-metrics-monitor",
		"gateway-monitor/monitor.yaml":              "ServiceMonitor " + release + "-gateway",
		"prometheus/rules.yaml":                     "PrometheusRule " + release + "-rules",
		"network-policy/ingress.yaml":               "NetworkPolicy " + deployment,
		"network-policy-egress/egress.yaml":         "NetworkPolicy " + deployment + "-egress",
		"gateway-network-policy-egress/egress.yaml": "NetworkPolicy " + release + "-gateway-egress",
	} {
		if want, got := specOf(t, read(t, "../../config/"+file)), specOf(t, chart[name]); !reflect.DeepEqual(want, got) {
			t.Errorf("config/%s has\n%v\nand the chart's %s\n%v", file, want, name, got)
		}
	}
}

// A certificate by config/metrics-certificate is served as one by the chart's value; the chart leaves its making to the user.
func TestSameAsMetricsCertificate(t *testing.T) {
	want := kustomizeWith(t, "metrics-certificate")
	maps.DeleteFunc(want, func(key string, _ []byte) bool {
		return strings.HasPrefix(key, "Issuer ") || strings.HasPrefix(key, "Certificate ")
	})
	sameAsChart(t, "the overlay", want, render(t, release, releaseSystem, "metrics: {certificate: {secretName: metrics-server-cert}}\n"))
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// specOf is the spec of an object, without what Helm adds to it.
func specOf(t *testing.T, doc []byte) map[string]any {
	t.Helper()
	var o struct{ Spec map[string]any }
	if err := yaml.Unmarshal(doc, &o); err != nil {
		t.Fatal(err)
	}
	if len(o.Spec) == 0 {
		t.Fatalf("no spec in %q", doc)
	}
	strip(o.Spec)
	return o.Spec
}

// writeInstaller writes dist/install.yaml.
func writeInstaller(t *testing.T) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "make", "-s", "-C", "../..", "build-installer", "IMG="+image+":"+version) //nolint:gosec // our own
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make build-installer: %v: %s", err, out)
	}
}

// normalised is an object without what must differ.
func normalised(t *testing.T, doc []byte) string {
	t.Helper()
	var o any
	if err := yaml.Unmarshal(doc, &o); err != nil {
		t.Fatal(err)
	}
	strip(o)
	out, err := yaml.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// strip removes what Helm adds, and maps and lists that are left empty.
func strip(o any) {
	switch v := o.(type) {
	case map[string]any:
		for _, key := range []string{"helm.sh/chart", "app.kubernetes.io/instance", "app.kubernetes.io/version",
			"app.kubernetes.io/managed-by", "helm.sh/resource-policy"} {
			delete(v, key)
		}
		for key, inner := range v {
			strip(inner)
			if m, ok := inner.(map[string]any); ok && len(m) == 0 {
				delete(v, key)
			}
		}
	case []any:
		for _, inner := range v {
			strip(inner)
		}
	}
}

// TestForeignKinds: what the chart makes for the Prometheus operator is what that one's own CRDs accept, field by field.
func TestForeignKinds(t *testing.T) {
	w := newWorld(t, shared)
	crds, err := envtest.InstallCRDs(w.env.Config, envtest.CRDInstallOptions{Paths: []string{"../testdata/foreign-crds"}, ErrorIfPathMissing: true})
	w.must(err)
	t.Cleanup(func() { w.must(envtest.UninstallCRDs(w.env.Config, envtest.CRDInstallOptions{CRDs: crds})) })
	objects := render(t, release, w.newNamespace(nil), `
metrics:
  certificate: {secretName: metrics-cert}
  serviceMonitor:
    enabled: true
    interval: 30s
    scrapeTimeout: 10s
    labels: {a: b}
    authorization: {type: Bearer, credentials: {name: prometheus-token, key: token}}
    relabelings: [{targetLabel: cluster, replacement: eu-1}]
    metricRelabelings: [{sourceLabels: [__name__], regex: go_.*, action: drop}]
  prometheusRule: {enabled: true, labels: {a: b}, severities: {critical: page}, runbookBaseURL: "https://example.com"}
`)
	api, err := client.New(w.env.Config, client.Options{}) // another one would not know the new kinds
	w.must(err)
	for _, kind := range []string{"ServiceMonitor", "PrometheusRule"} {
		object := &unstructured.Unstructured{}
		for key, doc := range objects {
			if strings.HasPrefix(key, kind+" ") {
				w.must(yaml.Unmarshal(doc, &object.Object))
			}
		}
		// Server-side apply refuses unknown fields.
		if err := api.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(object), client.DryRunAll, client.FieldOwner("test")); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// What cannot be right is refused, with a message that names the value.
func TestBadValues(t *testing.T) {
	for values, says := range map[string]string{
		"image.repository=":                                              "make image push IMG=",
		"replicaCount=two":                                               "/replicaCount",
		"replicas=2":                                                     "'replicas' not allowed",
		"image.digest=abc":                                               "/image/digest",
		"watch.namespaces={Shop}":                                        "/watch/namespaces/0",
		"wechat.endpoints={http://example.com}":                          "/wechat/endpoints/0",
		"wechat.caBundle.inline=nonsense":                                "/wechat/caBundle/inline",
		"metrics.port=0":                                                 "/metrics/port",
		"terminationGracePeriodSeconds=5":                                "/terminationGracePeriodSeconds",
		"extraArgs={zap}":                                                "/extraArgs/0",
		"proxy.httpsProxy=http://a,proxy.secretName=b":                   "not both",
		"wechat.caBundle.configMap=b,wechat.caBundle.key=":               "/wechat/caBundle/key",
		"serviceAccount.create=false,admissionPolicy.enabled=true":       "ServiceAccount",
		"serviceAccount.create=false,promptDelivery.enabled=true":        "ServiceAccount",
		"promptDelivery.enabled=maybe":                                   "/promptDelivery/enabled",
		"metrics.enabled=false,metrics.serviceMonitor.enabled=true":      "nothing to scrape",
		"commonLabels.control-plane=x":                                   "propertyName 'control-plane'",
		`podLabels.app\.kubernetes\.io/name=x`:                           "propertyName 'app.kubernetes.io/name'",
		"networkPolicy.egress.enabled=true,proxy.secretName=a":           "networkPolicy.egress.wechatPorts",
		"networkPolicy.egress.enabled=true,extraEnv[0].name=https_proxy": "networkPolicy.egress.wechatPorts",
		"networkPolicy.egress.enabled=true,gateway.enabled=true,gateway.tls.insecure=true,gateway.namespaces={a}," +
			"gateway.extraEnv[0].name=HTTPS_PROXY": "networkPolicy.egress.wechatPorts",
		"networkPolicy.egress.dnsPorts={}":    "/networkPolicy/egress/dnsPorts",
		"networkPolicy.dnsPorts={53}":         "'dnsPorts' not allowed",
		"metrics.port=8081":                   "/metrics/port",
		"metrics.serviceMonitor.enabled=true": "metrics.serviceMonitor.insecureSkipVerify=true",
		"metrics.serviceMonitor.enabled=true,metrics.serviceMonitor.tlsConfig.serverName=a": "metrics.certificate.secretName",
		"metrics.serviceMonitor.insecureSkipVerify=yes":                                     "/metrics/serviceMonitor/insecureSkipVerify",
		"metrics.serviceMonitor.authorization.token=a":                                      "'token' not allowed",
		"enabled=false":                  "condition: wechat-token-operator.enabled",
		"fullnameOverride=A":             "/fullnameOverride",
		"commonLabels.a=1":               "/commonLabels/a",
		"extraVolumes[0].name=wechat-ca": "/extraVolumes/0/name",
		"extraVolumeMounts[0].mountPath=/etc/metrics-cert,extraVolumeMounts[0].name=a":              "/extraVolumeMounts/0/mountPath",
		"gateway.enabled=true,gateway.tls.insecure=true":                                            "gateway.allNamespaces=true",
		"gateway.enabled=true,gateway.allNamespaces=true":                                           "gateway.tls",
		"gateway.enabled=true,gateway.tls.insecure=true,gateway.namespaces={a},metrics.port=8080":   "metrics.port",
		"gateway.enabled=true,gateway.tls.insecure=true,gateway.namespaces={a},gateway.url=ftp://a": "/gateway/url",
		"gateway.terminationGracePeriodSeconds=30":                                                  "/gateway/terminationGracePeriodSeconds",
		"gateway.tls.issuer=a":                        "'issuer' not allowed",
		"resources=a":                                 "/resources",
		"log.level=loud":                              "/log/level",
		"log.format=xml":                              "/log/format",
		"dnsPolicy=x":                                 "/dnsPolicy",
		"strategy.type=x":                             "/strategy/type",
		"revisionHistoryLimit=-1":                     "/revisionHistoryLimit",
		"livenessProbe.periodSeconds=0":               "/livenessProbe/periodSeconds",
		"livenessProbe.httpGet.path=/":                "'httpGet' not allowed",
		"extraObjects[0].kind=A":                      "/extraObjects/0",
		"metrics.prometheusRule.severities.bad=a":     "'bad' not allowed",
		"metrics.prometheusRule.runbookBaseURL=docs/": "/metrics/prometheusRule/runbookBaseURL",
		"podDisruptionBudget.maxUnavailable=-1":       "/podDisruptionBudget/maxUnavailable",
	} {
		t.Run(values, func(t *testing.T) {
			out, err := runHelm(context.WithoutCancel(t.Context()), "", "template", release, chartDir, "--set", "image.repository="+image, "--set", values)
			if err == nil || !strings.Contains(out, says) {
				t.Errorf("helm said %v: %s", err, out)
			}
		})
	}
	out, err := runHelm(t.Context(), "", "template", release, chartDir, "--set", "image.repository="+image, "--kube-version", "v1.30.0")
	if err == nil || !strings.Contains(out, "1.31") {
		t.Errorf("an older Kubernetes: %v: %s", err, out)
	}
}

// TestArtifactHub checks that what the annotations for ArtifactHub say of the CRD is so, and that the API server takes their examples.
func TestArtifactHub(t *testing.T) {
	var chart struct{ Annotations map[string]string }
	var crds []struct{ Kind, Version, Name, DisplayName, Description string }
	var examples []map[string]any
	var links []struct{ Name, URL string }
	if err := yaml.Unmarshal(read(t, filepath.Join(chartDir, "Chart.yaml")), &chart); err != nil {
		t.Fatal(err)
	}
	for name, into := range map[string]any{"crds": &crds, "crdsExamples": &examples, "links": &links} {
		if err := yaml.UnmarshalStrict([]byte(chart.Annotations["artifacthub.io/"+name]), into); err != nil {
			t.Fatalf("artifacthub.io/%s: %v", name, err)
		}
	}
	if len(crds) != 1 || crds[0].Kind != v1alpha1.Kind || crds[0].Version != v1alpha1.GroupVersion.Version ||
		crds[0].Name != "wechatapptokens."+v1alpha1.GroupName || len(examples) == 0 || len(links) == 0 {
		t.Errorf("CRDs %+v, %d examples, %d links", crds, len(examples), len(links))
	}
	w := newWorld(t, shared)
	namespace := w.newNamespace(nil)
	for _, example := range examples {
		object := &unstructured.Unstructured{Object: example}
		object.SetNamespace(namespace)
		// Server-side apply refuses unknown fields.
		if err := w.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(object), client.DryRunAll, client.FieldOwner("test")); err != nil {
			t.Errorf("%s: %v", object.GetKind(), err)
		}
	}
}

// The oldest Kubernetes that the chart admits is the one that make test-oldest runs, and the documents say so.
func TestOldestKubernetes(t *testing.T) {
	var chart struct{ KubeVersion string }
	if err := yaml.Unmarshal(read(t, filepath.Join(chartDir, "Chart.yaml")), &chart); err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`\tk8s\.io/kubernetes v(\S+)`).FindSubmatch(read(t, "../../hack/controlplane/oldest/go.mod"))
	if found == nil || chart.KubeVersion != ">="+string(found[1])+"-0" {
		t.Fatalf("the chart admits %s, and make test-oldest runs %q", chart.KubeVersion, found)
	}
	version := string(found[1])
	for _, path := range []string{"../../README.md", "../../docs/install.md", "../../docs/upgrade.md", filepath.Join(chartDir, "README.md")} {
		if !bytes.Contains(read(t, path), []byte("v"+version)) {
			t.Errorf("%s does not name v%s", path, version)
		}
	}
}

// In namespace-list mode nothing about Secrets is cluster-wide, and without secure metrics nothing at all is but what
// people use.
func TestNothingClusterWide(t *testing.T) {
	for key, doc := range render(t, "x", "y", "watch: {namespaces: [shop, blog]}\nmetrics: {secure: false}\n") {
		if strings.HasPrefix(key, "ClusterRoleBinding") || strings.HasPrefix(key, "ClusterRole ") && bytes.Contains(doc, []byte("secrets")) {
			t.Errorf("%s:\n%s", key, doc)
		}
	}
}
