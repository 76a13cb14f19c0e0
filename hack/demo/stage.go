// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

const (
	namespace = "demo"
	// tokenLife is the life of tokens in the main story. A rotation is due after half of it.
	tokenLife = 40 * time.Second
	// shutdownPatience is for the operator to end by itself.
	shutdownPatience = 10 * time.Second
)

// stage is everything that runs.
type stage struct {
	options

	dir    string
	start  time.Time
	env    *testenv.Environment
	client client.Client
	wechat *wechattest.Server
	admin  *http.Server

	// prometheus observes the operator, if that was asked for.
	prometheus *scraper
	// metricsAt is where the operator serves its metrics; "0" for nowhere.
	metricsAt string

	process   *exec.Cmd
	exited    chan error
	processAt string // the operator's log
	reader    *reader

	// token is the WeChatAppToken of the sample.
	token *v1alpha1.WeChatAppToken
	// life is how long WeChat's tokens live.
	life time.Duration
	// relay is what the gateway's story adds.
	relay relay
}

func newStage(opts options, dir string) *stage {
	return &stage{
		options: opts, dir: dir, start: time.Now(), processAt: filepath.Join(dir, "operator.log"), metricsAt: "0", life: tokenLife,
	}
}

func (s *stage) close() error {
	var errs []error
	if s.reader != nil {
		s.reader.stop()
	}
	errs = append(errs, s.relay.close())
	if s.prometheus != nil {
		errs = append(errs, s.prometheus.stop())
	}
	if s.process != nil {
		errs = append(errs, s.stopOperator())
	}
	if s.admin != nil {
		errs = append(errs, s.admin.Close())
	}
	if s.wechat != nil {
		s.wechat.Close()
	}
	if s.env != nil {
		errs = append(errs, s.env.Stop())
	}
	return errors.Join(errs...)
}

// startControlPlane starts etcd and the API server with the CRD.
func (s *stage) startControlPlane(ctx context.Context) (err error) {
	if s.env, err = testenv.Start(ctx); err != nil {
		return err
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return fmt.Errorf("registering kinds: %w", err)
	}
	if s.client, err = client.New(s.env.Config, client.Options{Scheme: scheme}); err != nil {
		return fmt.Errorf("connecting to the control plane: %w", err)
	}
	ns := &corev1.Namespace{}
	ns.Name = namespace
	if err := s.client.Create(ctx, ns); err != nil {
		return fmt.Errorf("creating the namespace: %w", err)
	}
	return nil
}

// startWeChat starts the stand-in, with TLS as WeChat has it.
func (s *stage) startWeChat() (err error) {
	s.wechat, err = wechattest.NewServer(wechattest.Options{TLS: true, Life: s.life, AutoApps: true})
	return err
}

// startOperator starts the operator's binary with the rights of its role and no more.
func (s *stage) startOperator(ctx context.Context) error {
	if s.process != nil {
		return errors.New("the operator runs already")
	}
	kubeconfig, err := s.env.OperatorKubeConfig(ctx)
	if err != nil {
		return err
	}
	config, ca := filepath.Join(s.dir, "operator.kubeconfig"), filepath.Join(s.dir, "wechat-ca.pem")
	if err := errors.Join(os.WriteFile(config, kubeconfig, 0o600), os.WriteFile(ca, s.wechat.CACertPEM(), 0o600)); err != nil {
		return fmt.Errorf("writing the operator's files: %w", err)
	}
	probes, err := testenv.FreeAddress()
	if err != nil {
		return err
	}
	log, err := os.Create(s.processAt)
	if err != nil {
		return fmt.Errorf("creating the operator's log: %w", err)
	}
	defer log.Close() //nolint:errcheck // the process has its own handle
	args := []string{
		"--kubeconfig", config, "--wechat-endpoints", s.wechat.URL(), "--wechat-ca-file", ca,
		"--namespaces", namespace, "--health-probe-bind-address", probes,
		"--metrics-bind-address", s.metricsAt, "--metrics-secure=false",
	}
	if s.relay.address != "" {
		args = append(args, "--gateway-url", "http://"+s.relay.address)
	}
	s.process = exec.Command(s.operator, args...) //nolint:gosec,noctx // the caller's binary; stopOperator ends it
	s.process.Stdout, s.process.Stderr = log, log
	// Ctrl-C is ours to pass on.
	s.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.process.Start(); err != nil {
		s.process = nil
		return fmt.Errorf("starting the operator: %w", err)
	}
	s.exited = make(chan error, 1)
	go func(process *exec.Cmd, exited chan<- error) { exited <- process.Wait() }(s.process, s.exited)
	return s.awaitReady(ctx, "the operator", probes)
}

// awaitReady waits until the probe of a process says that it is ready.
func (s *stage) awaitReady(ctx context.Context, who, probes string) error {
	probe := &http.Client{Timeout: time.Second}
	return s.eventually(ctx, 20*time.Second, who+" is ready", func() (bool, string) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+probes+"/readyz", nil)
		if err != nil {
			return false, err.Error()
		}
		res, err := probe.Do(req)
		if err != nil {
			return false, "its probe does not answer"
		}
		defer res.Body.Close() //nolint:errcheck // nothing is read
		return res.StatusCode == http.StatusOK, res.Status
	})
}

func (s *stage) stopOperator() error {
	process := s.process
	s.process = nil
	if err := process.Process.Signal(syscall.SIGTERM); errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("the operator ended by itself: %w", errors.Join(<-s.exited, logTail(s.processAt)))
	}
	select {
	case err := <-s.exited:
		if err != nil {
			return fmt.Errorf("the operator did not end cleanly: %w", err)
		}
		return nil
	case <-time.After(shutdownPatience):
		return errors.Join(errors.New("the operator did not end when it was told to"), process.Process.Kill())
	}
}

// eventually waits for something to become true.
func (s *stage) eventually(ctx context.Context, within time.Duration, what string, look func() (done bool, seen string)) error {
	for end := time.Now().Add(within); ; {
		done, seen := look()
		if done {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("waited %s in vain until %s; last seen: %s", within, what, seen)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-s.exited:
			s.exited <- err // for stopOperator
			return errors.Join(errors.New("the operator ended"), err, logTail(s.processAt))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// logTail is the end of a log, as an error.
func logTail(path string) error {
	log, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	lines := strings.Split(string(bytes.TrimSpace(log)), "\n")
	return fmt.Errorf("the end of %s:\n%s", filepath.Base(path), strings.Join(lines[max(0, len(lines)-15):], "\n"))
}

// kubectl runs kubectl on the control plane.
func (s *stage) kubectl(ctx context.Context, args ...string) (string, error) {
	config, err := s.kubeconfig()
	if err != nil {
		return "", err
	}
	//nolint:gosec // the control plane's own kubectl
	cmd := exec.CommandContext(ctx, s.kubectlPath(), append([]string{"--kubeconfig", config, "--namespace", namespace}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

func (s *stage) kubectlPath() string {
	return filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kubectl")
}

// kubeconfig writes the administrator's.
func (s *stage) kubeconfig() (string, error) {
	path := filepath.Join(s.dir, "kubeconfig")
	if err := os.WriteFile(path, s.env.KubeConfig, 0o600); err != nil {
		return "", fmt.Errorf("writing the kubeconfig: %w", err)
	}
	return path, nil
}

// wait leaves everything running.
func (s *stage) wait(ctx context.Context, kubeconfig string) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	s.admin = &http.Server{Handler: s.wechat.AdminHandler(), ReadHeaderTimeout: 5 * time.Second}
	go s.admin.Serve(listener) //nolint:errcheck // ends with close
	s.say("")
	s.say("Everything keeps running until Ctrl-C. In another shell:")
	s.say("    export KUBECONFIG=%s", kubeconfig)
	s.say("    alias kubectl=%s", s.kubectlPath())
	s.say("    kubectl --namespace %s describe wxtoken %s", namespace, s.token.Name)
	if s.prometheus != nil {
		s.say("Prometheus is http://%s.", s.prometheus.address)
	}
	if s.relay.program != nil {
		s.say("The gateway is http://%s; curl http://%s/call has the program call WeChat.", s.relay.address, s.relay.program.address)
	}
	s.say("The stand-in for WeChat is %s, its ledger http://%s, the operator's log %s.", s.wechat.URL(), listener.Addr(), s.processAt)
	<-ctx.Done()
	return nil
}
