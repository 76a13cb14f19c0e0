// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
)

// arbitraryUID is of the kind that OpenShift gives to pods.
const arbitraryUID = 1000680000

// process is a pod's only container, run as a process of this machine.
type process struct {
	username string
	// config is access as the pod has it.
	config *rest.Config
	args   []string
	log    string
	exited chan error
	stop   func()
}

// start does a kubelet's work for one pod of the Deployment: it mounts the ConfigMaps and the ServiceAccount's token,
// resolves the environment, and starts the image with the arguments. There is no container, so what is mounted lies
// elsewhere: arguments below a mount path are redirected, and KUBECONFIG stands for the ServiceAccount's folder.
func (w *world) start(namespace, deployment string) *process {
	w.Helper()
	p := w.launch(namespace, deployment)
	w.awaitReady(p)
	return p
}

// launch is start without waiting until the pod is ready.
func (w *world) launch(namespace, deployment string) *process {
	w.Helper()
	d := &appsv1.Deployment{}
	w.must(w.Get(w.Context(), client.ObjectKey{Namespace: namespace, Name: deployment}, d))
	pod := &d.Spec.Template.Spec
	container := &pod.Containers[0]
	binary, found := images[container.Image]
	if !found {
		w.Fatalf("there is no image %s", container.Image)
	}
	dir, err := os.MkdirTemp(w.dir, "pod-")
	w.must(err)
	p := &process{username: fmt.Sprintf("system:serviceaccount:%s:%s", namespace, pod.ServiceAccountName)}
	p.config = w.podConfig(namespace, pod.ServiceAccountName)
	kubeconfig := filepath.Join(dir, "kubeconfig")
	w.must(writeKubeconfig(kubeconfig, p.config))

	env := w.podEnvironment(namespace, container.Env)
	mounts := w.mount(namespace, dir, pod.Volumes, container.VolumeMounts)
	for _, arg := range container.Args {
		p.args = append(p.args, expand(mounts.Replace(arg), env))
	}
	w.run(p, dir, env, binary, kubeconfig, time.Duration(*pod.TerminationGracePeriodSeconds)*time.Second)
	return p
}

// run starts the process as a user of which the image knows nothing.
func (w *world) run(p *process, dir string, env map[string]string, binary, kubeconfig string, grace time.Duration) {
	w.Helper()
	output, err := os.Create(filepath.Join(dir, "log"))
	w.must(err)
	defer output.Close()                   //nolint:errcheck // the process has its own handle
	cmd := exec.Command(binary, p.args...) //nolint:gosec // the operator; stop ends it
	cmd.Stdout, cmd.Stderr, cmd.Dir = output, output, dir
	cmd.Env = []string{"KUBECONFIG=" + kubeconfig, "HOME=/"} // as runtimes set it for a user without an entry
	for name, value := range env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: arbitraryUID, Gid: 0}
		w.must(filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return os.Chown(path, arbitraryUID, 0)
		}))
	}
	w.must(cmd.Start())
	p.log, p.exited = output.Name(), make(chan error, 1)
	go func() { p.exited <- cmd.Wait() }()
	p.stop = sync.OnceFunc(func() { w.end(p, cmd, grace) })
	w.Cleanup(p.stop)
}

// end tells the process to stop, as a kubelet does, and looks into its log.
func (w *world) end(p *process, cmd *exec.Cmd, grace time.Duration) {
	_ = cmd.Process.Signal(syscall.SIGTERM) // one that ended by itself is seen below
	select {
	case err := <-p.exited:
		if err != nil {
			w.Errorf("the operator did not end cleanly: %v", err)
		}
	case <-time.After(grace):
		w.Errorf("the operator did not end within its grace period: %v", cmd.Process.Kill())
		<-p.exited //nolint:errcheck // it was killed
	}
	log, err := os.ReadFile(p.log)
	if err != nil {
		w.Error(err)
	}
	if w.Failed() {
		w.Logf("the operator's log:\n%s", log)
	}
	for _, t := range w.wechat.Tokens("") {
		if bytes.Contains(log, []byte(t.Token)) {
			w.Errorf("the log holds the token %s…", t.Token[:8])
		}
	}
	if bytes.Contains(log, []byte(appSecret)) {
		w.Error("the log holds the AppSecret")
	}
}

// flag is the value that counts of a flag that may be given twice.
func (p *process) flag(name string) string {
	var value string
	for _, arg := range p.args {
		if v, found := strings.CutPrefix(arg, name+"="); found {
			value = v
		}
	}
	return value
}

func (w *world) awaitReady(p *process) {
	w.Helper()
	w.Eventually(func(g gomega.Gomega) int {
		select {
		case err := <-p.exited:
			p.exited <- err
			w.Fatalf("the operator ended: %v", err)
		default:
		}
		return w.readyz(g, p)
	}).Should(gomega.Equal(http.StatusOK))
}

// readyz is the HTTP status that the process gives a kubelet; 0 while it does not answer.
func (w *world) readyz(g gomega.Gomega, p *process) int {
	w.Helper()
	probe := &http.Client{Timeout: time.Second}
	url := "http://" + p.flag("--health-probe-bind-address") + "/readyz"
	req, err := http.NewRequestWithContext(w.Context(), http.MethodGet, url, nil)
	g.Expect(err).NotTo(gomega.HaveOccurred())
	res, err := probe.Do(req)
	if err != nil {
		return 0
	}
	g.Expect(res.Body.Close()).To(gomega.Succeed())
	return res.StatusCode
}

// podConfig is access with a token of the ServiceAccount, as the kubelet gets one.
func (w *world) podConfig(namespace, account string) *rest.Config {
	w.Helper()
	request := &authenticationv1.TokenRequest{}
	owner := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: account}}
	w.must(w.SubResource("token").Create(w.Context(), owner, request))
	config := rest.AnonymousClientConfig(w.env.Config)
	config.BearerToken = request.Status.Token
	return config
}

func writeKubeconfig(path string, config *rest.Config) error {
	out := clientcmdapi.NewConfig()
	out.Clusters["c"] = &clientcmdapi.Cluster{Server: config.Host, CertificateAuthorityData: config.CAData}
	out.AuthInfos["u"] = &clientcmdapi.AuthInfo{Token: config.BearerToken}
	out.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	out.CurrentContext = "x"
	return clientcmd.WriteToFile(*out, path)
}

// podEnvironment resolves the container's variables. Kubernetes adds the API server's address.
func (w *world) podEnvironment(namespace string, vars []corev1.EnvVar) map[string]string {
	w.Helper()
	host, _, err := net.SplitHostPort(strings.TrimPrefix(w.env.Config.Host, "https://"))
	if err != nil {
		host, _, err = net.SplitHostPort(w.env.Config.Host)
	}
	w.must(err)
	env := map[string]string{"KUBERNETES_SERVICE_HOST": host}
	for _, v := range vars {
		switch {
		case v.ValueFrom == nil:
			env[v.Name] = expand(v.Value, env)
		case v.ValueFrom.SecretKeyRef != nil:
			ref, secret := v.ValueFrom.SecretKeyRef, &corev1.Secret{}
			w.must(w.Get(w.Context(), client.ObjectKey{Namespace: namespace, Name: ref.Name}, secret))
			env[v.Name] = string(secret.Data[ref.Key])
		default:
			w.Fatalf("the variable %s has a source that this test does not know", v.Name)
		}
	}
	return env
}

// expand replaces $(NAME), as Kubernetes does.
func expand(text string, env map[string]string) string {
	for name, value := range env {
		text = strings.ReplaceAll(text, "$("+name+")", value)
	}
	return text
}

// files are those of a volume.
func (w *world) files(namespace string, v corev1.Volume) map[string][]byte {
	w.Helper()
	if v.Secret != nil {
		secret := &corev1.Secret{}
		err := w.Get(w.Context(), client.ObjectKey{Namespace: namespace, Name: v.Secret.SecretName}, secret)
		if optional := v.Secret.Optional; optional != nil && *optional {
			err = client.IgnoreNotFound(err)
		}
		w.must(err)
		return secret.Data
	}
	config := &corev1.ConfigMap{}
	w.must(w.Get(w.Context(), client.ObjectKey{Namespace: namespace, Name: v.ConfigMap.Name}, config))
	out := map[string][]byte{}
	for name, text := range config.Data {
		out[name] = []byte(text)
	}
	return out
}

// mount writes ConfigMaps and Secrets below dir and tells where the mount paths went.
func (w *world) mount(namespace, dir string, volumes []corev1.Volume, mounts []corev1.VolumeMount) *strings.Replacer {
	w.Helper()
	var moved []string
	for _, m := range mounts {
		for _, v := range volumes {
			if v.Name != m.Name || v.ConfigMap == nil && v.Secret == nil {
				continue
			}
			at := filepath.Join(dir, v.Name)
			w.must(os.MkdirAll(at, 0o700))
			for name, text := range w.files(namespace, v) {
				w.must(os.WriteFile(filepath.Join(at, name), text, 0o600))
			}
			moved = append(moved, m.MountPath, at)
		}
	}
	return strings.NewReplacer(moved...)
}

// loopback are arguments for a machine that other processes share: ports that are free, and a namespace for the Lease,
// which a pod reads from its ServiceAccount's folder.
func (w *world) loopback(namespace string) string {
	w.Helper()
	free := func() string {
		address, err := testenv.FreeAddress()
		w.must(err)
		return address
	}
	return fmt.Sprintf("extraArgs:\n- --health-probe-bind-address=%s\n- --metrics-bind-address=%s\n- --leader-election-namespace=%s\n",
		free(), free(), namespace)
}
