// SPDX-License-Identifier: Apache-2.0

// Package testenv starts a real etcd and kube-apiserver with the CRD of WeChatAppTokens, for tests and the demo. The environment
// variable KUBEBUILDER_ASSETS names the folder with their binaries.
package testenv

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"time"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// patience is how long a program of the control plane may take to start or to end. The 20 s that envtest allows are too few where other
// tests start theirs on the same two slow cores.
const patience = 2 * time.Minute

// Environment is a running control plane. It has no controllers, so that nothing collects garbage or ends namespaces unless
// StartControllers is called.
type Environment struct {
	Config *rest.Config
	// KubeConfig is the content of an administrator's kubeconfig, for other processes.
	KubeConfig []byte

	env *envtest.Environment
	dir string
	// audit guards requests and auditRead, which are what was read of the audit log and up to which byte.
	audit     sync.Mutex
	requests  []Request
	auditRead int64
}

// auditPolicy makes the API server record who made which request. It leaves out the bodies, which would contain tokens.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
`

// Option changes how Start starts the control plane.
type Option func(*settings)

type settings struct {
	bare      bool
	crds      []string
	noAudit   bool
	etcdQuota int64
}

// WithoutAuditLog turns off the audit log, and with it the method Requests. Each request waits until its line is written, which would
// show in a measurement.
func WithoutAuditLog() Option { return func(s *settings) { s.noAudit = true } }

// WithEtcdQuota sets how many bytes etcd may store. 0 stands for etcd's own default.
func WithEtcdQuota(quota int64) Option { return func(s *settings) { s.etcdQuota = quota } }

// Bare starts the control plane without the operator's rights and with the CRDs of these folders only, for tests that install the
// operator themselves. It has Kubernetes' default admission plugins, without the one that OpenShift turns on.
func Bare(crds ...string) Option { return func(s *settings) { s.bare, s.crds = true, crds } }

// Start starts the control plane with the operator's CRD and rights. The admission plugin OwnerReferencesPermissionEnforcement is on,
// as on OpenShift.
func Start(ctx context.Context, opts ...Option) (*Environment, error) {
	set := settings{crds: []string{filepath.Join(repository(), "config", "crd", "bases")}}
	for _, o := range opts {
		o(&set)
	}
	e, err := start(set)
	if err != nil || set.bare {
		return e, err
	}
	if err := e.installRights(ctx); err != nil {
		return nil, errors.Join(err, e.Stop())
	}
	return e, nil
}

func start(set settings) (*Environment, error) {
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		return nil, errors.New("KUBEBUILDER_ASSETS is not set: run this by make, or set it to a folder with etcd, kube-apiserver and kubectl")
	}
	dir, err := os.MkdirTemp("", "wechat-token-operator-")
	if err != nil {
		return nil, fmt.Errorf("making a folder for the control plane: %w", err)
	}
	e := &Environment{dir: dir, env: &envtest.Environment{
		CRDDirectoryPaths:        set.crds,
		ErrorIfCRDPathMissing:    true,
		ControlPlaneStartTimeout: patience,
		ControlPlaneStopTimeout:  patience,
	}}
	if !set.bare {
		e.env.ControlPlane.GetAPIServer().Configure().Append("enable-admission-plugins", "OwnerReferencesPermissionEnforcement")
	}
	if !set.noAudit {
		if err := e.configureAudit(); err != nil {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
	}
	// The data is thrown away in the end, so it need not be safe on the disk.
	e.env.ControlPlane.Etcd = &envtest.Etcd{}
	e.env.ControlPlane.Etcd.Configure().Append("unsafe-no-fsync", "true")
	if set.etcdQuota > 0 {
		e.env.ControlPlane.Etcd.Configure().Append("quota-backend-bytes", strconv.FormatInt(set.etcdQuota, 10))
	}
	if e.Config, err = e.env.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("starting the control plane: %w", err), e.Stop())
	}
	e.KubeConfig = e.env.KubeConfig
	return e, nil
}

func (e *Environment) configureAudit() error {
	policy := filepath.Join(e.dir, "audit-policy.yaml")
	if err := os.WriteFile(policy, []byte(auditPolicy), 0o600); err != nil {
		return fmt.Errorf("writing the audit policy: %w", err)
	}
	e.env.ControlPlane.GetAPIServer().Configure().
		Set("audit-policy-file", policy).
		Set("audit-log-path", e.auditLog()).
		Set("audit-log-mode", "blocking")
	return nil
}

// Stop ends the control plane and removes its files.
func (e *Environment) Stop() error {
	return errors.Join(e.env.Stop(), os.RemoveAll(e.dir))
}

func (e *Environment) auditLog() string { return filepath.Join(e.dir, "audit.log") }

// Request is a request that the API server answered, as the audit log records it.
type Request struct {
	Verb      string `json:"verb"`
	UserAgent string `json:"userAgent"`
	User      struct {
		Username string `json:"username"`
	} `json:"user"`
	Object struct {
		Group       string `json:"apiGroup"`
		Resource    string `json:"resource"`
		Subresource string `json:"subresource"`
		Namespace   string `json:"namespace"`
		Name        string `json:"name"`
	} `json:"objectRef"`
	Status struct {
		Code int `json:"code"`
	} `json:"responseStatus"`
	URI       string `json:"requestURI"`
	Timestamp string `json:"requestReceivedTimestamp"`
}

// Requests returns all requests so far that keep accepts, in the order of their answers.
func (e *Environment) Requests(keep func(Request) bool) ([]Request, error) {
	e.audit.Lock()
	defer e.audit.Unlock()
	if err := e.readAuditLog(); err != nil {
		return nil, err
	}
	var out []Request
	for _, r := range e.requests {
		if keep(r) {
			out = append(out, r)
		}
	}
	return out, nil
}

// readAuditLog decodes what was added to the audit log since the last call.
func (e *Environment) readAuditLog() error {
	file, err := os.Open(e.auditLog())
	if err != nil {
		return fmt.Errorf("opening the audit log: %w", err)
	}
	defer file.Close() //nolint:errcheck // it was only read
	log, err := io.ReadAll(io.NewSectionReader(file, e.auditRead, math.MaxInt64-e.auditRead))
	if err != nil {
		return fmt.Errorf("reading the audit log: %w", err)
	}
	for line := range bytes.Lines(log) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // the line is still being written
		}
		var r Request
		if err := json.Unmarshal(line, &r); err != nil {
			return fmt.Errorf("decoding the audit log: %w", err)
		}
		e.requests = append(e.requests, r)
		e.auditRead += int64(len(line))
	}
	return nil
}

// repository returns the root of the source tree that this package was built from.
func repository() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}

// FreeAddress returns a loopback address at which nothing listens, for a process that a test starts. Nothing reserves it.
func FreeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it is closed at once
	if err != nil {
		return "", fmt.Errorf("finding a free port: %w", err)
	}
	return listener.Addr().String(), listener.Close()
}
