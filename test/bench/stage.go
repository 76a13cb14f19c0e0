// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

const (
	readyPatience = 2 * time.Minute
)

// programs are the paths of what is started as a process of its own.
type programs struct {
	operator, fakeWeChat string
	// self is this program, which is the plain loop too.
	self string
}

// stage is a control plane of its own with its stand-in for WeChat.
type stage struct {
	programs

	dir        string
	env        *testenv.Environment
	client     client.WithWatch
	rest       *rest.Config
	own        *tally
	kubeconfig string

	standIn   *process
	wechatURL string
	wechatCA  string
	wechat    *wechattest.Remote
	launched  int
}

type stageOptions struct {
	etcdQuota int64
	// life of WeChat's tokens.
	life time.Duration
}

// newStage starts the control plane and the stand-in. Close it, also after an error.
func newStage(ctx context.Context, p programs, dir string, o stageOptions) (*stage, error) {
	dir, err := os.MkdirTemp(dir, "stage-")
	if err != nil {
		return nil, fmt.Errorf("making a folder: %w", err)
	}
	s := &stage{programs: p, dir: dir}
	if err := s.startControlPlane(ctx, o.etcdQuota); err != nil {
		return nil, errors.Join(err, s.close())
	}
	if err := s.startStandIn(o.life); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *stage) close() error {
	var errs []error
	if s.standIn != nil {
		errs = append(errs, s.standIn.stop())
	}
	if s.env != nil {
		errs = append(errs, s.env.Stop())
	}
	return errors.Join(errs...)
}

func (s *stage) startControlPlane(ctx context.Context, quota int64) (err error) {
	s.env, err = testenv.Start(ctx, testenv.WithoutAuditLog(), testenv.WithEtcdQuota(quota))
	if err != nil {
		return err
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return fmt.Errorf("registering kinds: %w", err)
	}
	s.own = newTally()
	s.rest = rest.CopyConfig(s.env.Config)
	s.rest.QPS = -1
	s.rest.Wrap(s.own.wrap)
	if s.client, err = client.NewWithWatch(s.rest, client.Options{Scheme: scheme}); err != nil {
		return fmt.Errorf("connecting to the control plane: %w", err)
	}
	kubeconfig, err := s.env.OperatorKubeConfig(ctx)
	if err != nil {
		return err
	}
	s.kubeconfig = filepath.Join(s.dir, "kubeconfig")
	return os.WriteFile(s.kubeconfig, kubeconfig, 0o600)
}

// startStandIn starts the stand-in with TLS, as WeChat has it.
func (s *stage) startStandIn(life time.Duration) error {
	reader, writer, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("making a pipe: %w", err)
	}
	defer reader.Close() //nolint:errcheck // one line is read
	s.wechatCA = filepath.Join(s.dir, "wechat-ca.pem")
	s.standIn, err = launch("the stand-in", filepath.Join(s.dir, "fake-wechat.log"), writer, s.fakeWeChat,
		"--auto-apps", "--tls", "--tls-ca-out", s.wechatCA, "--life", life.String())
	if err = errors.Join(err, writer.Close()); err != nil {
		return err
	}
	var ready struct{ URL, AdminURL string }
	line, err := bufio.NewReader(reader).ReadBytes('\n')
	if err != nil {
		return errors.Join(fmt.Errorf("waiting for the stand-in: %w", err), s.standIn.tail())
	}
	if err := json.Unmarshal(line, &ready); err != nil {
		return fmt.Errorf("the stand-in said %q: %w", line, err)
	}
	s.wechatURL, s.wechat = ready.URL, wechattest.NewRemote(ready.AdminURL)
	return nil
}

// operator is a running operator.
type operator struct {
	*process

	pprof, probes string
}

// startOperator starts the operator's binary and waits until its caches are filled. All flags but addresses have their
// defaults.
func (s *stage) startOperator(ctx context.Context, args ...string) (*operator, error) {
	o, probes, err := s.launchOperator(args...)
	if err != nil {
		return nil, err
	}
	if err := o.answers(ctx, "http://"+probes+"/readyz", readyPatience); err != nil {
		return nil, errors.Join(err, o.kill())
	}
	return o, nil
}

func (s *stage) launchOperator(args ...string) (*operator, string, error) {
	probes, err := testenv.FreeAddress()
	if err != nil {
		return nil, "", err
	}
	pprof, err := testenv.FreeAddress()
	if err != nil {
		return nil, "", err
	}
	s.launched++
	args = append([]string{
		"--kubeconfig", s.kubeconfig, "--wechat-endpoints", s.wechatURL, "--wechat-ca-file", s.wechatCA,
		"--health-probe-bind-address", probes, "--pprof-bind-address", pprof,
	}, args...)
	name := fmt.Sprintf("operator-%d", s.launched)
	p, err := launch(name, filepath.Join(s.dir, name+".log"), nil, s.operator, args...)
	if err != nil {
		return nil, "", err
	}
	return &operator{process: p, pprof: pprof, probes: probes}, probes, nil
}

// credentialsOf is the Secret with the AppSecret of an app.
func credentialsOf(a app) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: a.credentialsName(), Namespace: a.namespace},
		Data:       map[string][]byte{"appSecret": []byte(a.secret)},
	}
}

// foreignSecret is an Opaque Secret that the operator has nothing to do with.
func foreignSecret(i, size int) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Name: fmt.Sprintf("foreign-%06d", i), Namespace: appOf(i % appsPerNamespace).namespace,
			Labels:      map[string]string{"app.kubernetes.io/name": "foreign", "app.kubernetes.io/managed-by": "somebody-else"},
			Annotations: map[string]string{"example.com/checksum": strings.Repeat("0", 64)},
		},
		Data: map[string][]byte{"blob": []byte(strings.Repeat("x", size))},
	}
}
