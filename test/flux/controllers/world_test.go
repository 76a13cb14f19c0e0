// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

const (
	root     = "../../.."
	patience = 2 * time.Minute

	fluxNamespace     = "flux-system"
	operatorNamespace = "wechat-token-operator-system"
	operatorAccount   = "wechat-token-operator-controller-manager"
	shopNamespace     = "shop"

	// The Kustomizations of examples/gitops/flux.
	operatorKustomization = "wechat-token-operator"
	tokensKustomization   = "wechat-tokens"
	shopKustomization     = "shop"
)

// The intervals at which Flux looks again. Flux's own values would make the test wait for minutes.
const (
	dependencyInterval = 5 * time.Second
	retryInterval      = 5 * time.Second
	tokensTimeout      = 30 * time.Second // Flux takes no less
)

// world is a control plane with Flux, an operator and a stand-in for WeChat.
type world struct {
	client.Client
	*testing.T

	env    *testenv.Environment
	wechat *wechattest.Server
	dir    string
	tag    name.Tag
	// files is what is in Git.
	files map[string]string
	// revision is what was pushed last.
	revision string
	// since is when the last change was made, in Git or elsewhere.
	since time.Time
	rows  []row

	mu     sync.Mutex
	events []event
}

// event is what Flux tells its notification-controller. Unlike Kubernetes' events, none is left out when there are many.
type event struct {
	Object  corev1.ObjectReference `json:"involvedObject"`
	Reason  string                 `json:"reason"`
	Message string                 `json:"message"`
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, dir: t.TempDir(), tag: startRegistry(t), files: map[string]string{}}
	kustomizeController, sourceController := build(t, "kustomize-controller"), build(t, "source-controller")
	w.env = testenv.ForTest(t, testenv.Bare(crds(t, "kustomize-controller"), crds(t, "source-controller")))
	var err error
	if w.Client, err = client.New(w.env.Config, client.Options{}); err != nil {
		t.Fatal(err)
	}
	stop, err := w.env.StartControllers("garbage-collector-controller", "deployment-controller", "replicaset-controller")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	if w.wechat, err = wechattest.NewServer(wechattest.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.wechat.Close)
	for _, ns := range []string{fluxNamespace, shopNamespace} {
		w.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}})
	}

	kubeconfig := w.write("flux.kubeconfig", w.env.KubeConfig)
	events := httptest.NewServer(http.HandlerFunc(w.hear))
	t.Cleanup(events.Close)
	storage := w.address()
	w.start("source-controller", kubeconfig, sourceController, "--metrics-addr=0", "--health-addr="+w.address(), "--events-addr="+events.URL,
		"--storage-path="+w.folder("storage"), "--storage-addr="+storage, "--storage-adv-addr="+storage)
	w.start("kustomize-controller", kubeconfig, kustomizeController, "--metrics-addr=0", "--health-addr="+w.address(),
		"--events-addr="+events.URL, "--requeue-dependency="+dependencyInterval.String())
	return w
}

// build returns the path of one of Flux's controllers.
func build(t *testing.T, controller string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), root+"/hack/tools/build.sh", controller)
	cmd.Stderr = os.Stderr // says that it builds
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("building %s: %v", controller, err)
	}
	return strings.TrimSpace(string(out))
}

// crds returns the folder with the CRDs in the source of the controller that was built.
func crds(t *testing.T, controller string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "-C", root+"/hack/tools/flux",
		"list", "-m", "-f", "{{.Dir}}", "github.com/fluxcd/"+controller)
	cmd.Env = append(os.Environ(), "GOWORK=off")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("finding the source of %s: %v", controller, err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "config", "crd", "bases")
}

// hear receives the events that Flux would send to its notification-controller.
func (w *world) hear(_ http.ResponseWriter, r *http.Request) {
	var e event
	if err := json.NewDecoder(r.Body).Decode(&e); err != nil {
		w.Errorf("an event of Flux: %v", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, e)
}

// heard returns the messages of a Kustomization's events, without the first ones.
func (w *world) heard(kustomization string, without int) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, e := range w.events {
		if e.Object.Kind == "Kustomization" && e.Object.Name == kustomization {
			out = append(out, e.Message)
		}
	}
	return out[min(without, len(out)):]
}

// start runs a program until the end of the test, and prints the end of its log if the test failed.
func (w *world) start(what, kubeconfig, path string, args ...string) {
	w.Helper()
	log := filepath.Join(w.dir, what+".log")
	file, err := os.Create(log)
	w.must(err)
	defer file.Close() //nolint:errcheck // the process has its own handle
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = file, file
	cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "RUNTIME_NAMESPACE="+fluxNamespace, "TMPDIR="+w.folder(what))
	w.must(cmd.Start())
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	w.Cleanup(func() {
		select {
		case err := <-exited:
			w.Errorf("%s ended by itself: %v", what, err)
		default:
			_ = cmd.Process.Signal(syscall.SIGTERM)
			select {
			case <-exited:
			case <-time.After(30 * time.Second):
				w.Errorf("%s did not end when it was told to: %v", what, cmd.Process.Kill())
				<-exited
			}
		}
		if text, err := os.ReadFile(log); err == nil && w.Failed() {
			w.Logf("the end of the log of %s:\n%s", what, text[max(0, len(text)-4000):])
		}
	})
}

// startOperator runs the operator as the ServiceAccount that Flux made for it.
func (w *world) startOperator() {
	w.Helper()
	binary := filepath.Join(w.dir, "operator")
	build := exec.CommandContext(w.Context(), "go", "-C", root, "build", "-buildvcs=false", "-o", binary, "./cmd/operator")
	if out, err := build.CombinedOutput(); err != nil {
		w.Fatalf("building the operator: %v: %s", err, out)
	}
	w.await("the operator's ServiceAccount", func() (bool, string) {
		account := &corev1.ServiceAccount{}
		err := w.Get(w.Context(), client.ObjectKey{Namespace: operatorNamespace, Name: operatorAccount}, account)
		return err == nil, fmt.Sprint(err)
	})
	request := &authenticationv1.TokenRequest{}
	owner := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: operatorAccount}}
	w.must(w.SubResource("token").Create(w.Context(), owner, request))
	config := rest.AnonymousClientConfig(w.env.Config)
	config.BearerToken = request.Status.Token
	kubeconfig, err := testenv.KubeConfigOf(config)
	w.must(err)
	w.start("operator", w.write("operator.kubeconfig", kubeconfig), binary, "--wechat-endpoints="+w.wechat.URL(),
		"--metrics-bind-address=0", "--health-probe-bind-address=0", "--leader-elect", "--leader-election-namespace="+operatorNamespace)
}

// configureFlux makes the source, and the Kustomizations of the example.
func (w *world) configureFlux() {
	w.Helper()
	source := w.object("source.toolkit.fluxcd.io/v1", "OCIRepository", "platform")
	source.Object["spec"] = map[string]any{
		"interval": "10m", "url": "oci://" + w.tag.Repository.Name(), "ref": map[string]any{"tag": w.tag.TagStr()}, "insecure": true,
	}
	w.create(source)
	example, err := os.ReadFile(root + "/examples/gitops/flux/kustomization.yaml")
	w.must(err)
	for _, document := range strings.Split(string(example), "\n---\n") {
		k := &unstructured.Unstructured{}
		w.must(yaml.Unmarshal([]byte(document), &k.Object))
		spec := k.Object["spec"].(map[string]any)
		spec["sourceRef"].(map[string]any)["kind"] = "OCIRepository"
		spec["retryInterval"] = retryInterval.String()
		if k.GetName() == tokensKustomization {
			spec["timeout"] = tokensTimeout.String()
		}
		w.create(k)
	}
}

// push pushes what is in Git, and has Flux look at it at once.
func (w *world) push() {
	w.Helper()
	w.upload()
	w.request(w.object("source.toolkit.fluxcd.io/v1", "OCIRepository", "platform"), "reconcile.fluxcd.io/requestedAt")
}

// upload pushes without telling Flux.
func (w *world) upload() {
	w.Helper()
	w.revision, w.since = pushArtifact(w.T, w.tag, w.files), time.Now()
}

// request does what "flux reconcile" and "kubectl wxtoken" do: it sets an annotation to a value that was not there before.
func (w *world) request(object client.Object, annotation string) string {
	w.Helper()
	value := time.Now().Format(time.RFC3339Nano)
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, annotation, value)
	w.must(w.Patch(w.Context(), object, client.RawPatch("application/merge-patch+json", patch), client.FieldOwner("flux-client-side-apply")))
	return value
}

func (w *world) object(apiVersion, kind, name string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(schema.FromAPIVersionAndKind(apiVersion, kind))
	o.SetNamespace(fluxNamespace)
	o.SetName(name)
	return o
}

func (w *world) kustomization(name string) *unstructured.Unstructured {
	return w.object("kustomize.toolkit.fluxcd.io/v1", "Kustomization", name)
}

// resource returns a WeChatAppToken, which need not be there.
func (w *world) resource(name string) *unstructured.Unstructured {
	o := w.object("wechat.apptoken.dev/v1alpha1", "WeChatAppToken", name)
	o.SetNamespace(shopNamespace)
	return o
}

// await waits until the condition is met. Otherwise the condition says what is.
func (w *world) await(what string, met func() (bool, string)) {
	w.Helper()
	deadline := time.Now().Add(patience)
	for {
		ok, got := met()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			w.Fatalf("waited %s for %s, and there is: %s", patience, what, got)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (w *world) create(o client.Object) {
	w.Helper()
	w.must(w.Create(w.Context(), o))
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) write(name string, content []byte) string {
	w.Helper()
	path := filepath.Join(w.dir, name)
	w.must(os.WriteFile(path, content, 0o600))
	return path
}

func (w *world) folder(name string) string {
	w.Helper()
	path := filepath.Join(w.dir, name+".d")
	w.must(os.MkdirAll(path, 0o700))
	return path
}

func (w *world) address() string {
	w.Helper()
	address, err := testenv.FreeAddress()
	w.must(err)
	return address
}
