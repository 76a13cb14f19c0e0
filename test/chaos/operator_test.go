// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// plan is the failpoint package's Plan: this test is built without the tag.
type plan struct {
	Rules  []rule        `json:"rules,omitempty"`
	Off    []string      `json:"off,omitempty"`
	Offset time.Duration `json:"offset,omitempty"`
}

type rule struct {
	ID   string `json:"id"`
	Step string `json:"step"`
	Nth  int    `json:"nth,omitempty"`
	Stop bool   `json:"stop,omitempty"`
}

// failpointsVariable is failpoint.FileVariable.
const failpointsVariable = "WECHAT_TOKEN_OPERATOR_FAILPOINTS"

// replica is one operator, or one gateway, started again whenever it ends, as kubelet does.
type replica struct {
	name   string
	binary string
	api    *apiProxy
	args   []string
	files  string // prefix of its files

	mu      sync.Mutex
	process *os.Process
	starts  int
	ended   []time.Time
	paused  bool
	stopped bool
	// restartAfter is how long it stays away after it ended.
	restartAfter time.Duration
	plan         plan
	done         chan struct{}
}

// startReplica starts a program behind a proxy of its own.
func startReplica(t *testing.T, binary, name, dir string, api *apiProxy, first plan, args ...string) *replica {
	t.Helper()
	r := &replica{
		name: name, binary: binary, api: api, files: filepath.Join(dir, name), restartAfter: 500 * time.Millisecond,
		args: append([]string{"--metrics-bind-address=0", "--health-probe-bind-address=0", "--zap-log-level=debug"}, args...),
		plan: first, done: make(chan struct{}),
	}
	config := clientcmdapi.NewConfig()
	config.Clusters["c"] = &clientcmdapi.Cluster{Server: api.url}
	config.Contexts["c"] = &clientcmdapi.Context{Cluster: "c"}
	config.CurrentContext = "c"
	if err := clientcmd.WriteToFile(*config, r.files+".kubeconfig"); err != nil {
		t.Fatal(err)
	}
	if err := r.writePlan(); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(r.files + ".log")
	if err != nil {
		t.Fatal(err)
	}
	go r.supervise(t, log)
	t.Cleanup(func() {
		r.stop()
		_ = log.Close()
	})
	return r
}

func (r *replica) supervise(t *testing.T, log *os.File) {
	defer close(r.done)
	for {
		cmd := exec.Command(r.binary, append([]string{"--kubeconfig", r.files + ".kubeconfig"}, r.args...)...)
		cmd.Env = append(os.Environ(), failpointsVariable+"="+r.files+".failpoints")
		cmd.Stdout, cmd.Stderr = log, log
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is ours to pass on
		r.mu.Lock()
		if r.stopped {
			r.mu.Unlock()
			return
		}
		if err := cmd.Start(); err != nil {
			r.mu.Unlock()
			t.Errorf("starting %s: %v", r.name, err)
			return
		}
		r.process = cmd.Process
		r.starts++
		r.mu.Unlock()
		_ = cmd.Wait() // it is killed most of the time
		r.mu.Lock()
		r.process, r.paused = nil, false
		r.ended = append(r.ended, time.Now())
		wait := r.restartAfter
		r.mu.Unlock()
		time.Sleep(wait)
	}
}

func (r *replica) signal(s syscall.Signal) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.process == nil {
		return false
	}
	r.paused = s == syscall.SIGSTOP
	return r.process.Signal(s) == nil
}

func (r *replica) kill() bool { return r.signal(syscall.SIGKILL) }

// stop ends it for good.
func (r *replica) stop() {
	r.mu.Lock()
	r.stopped = true
	r.mu.Unlock()
	r.kill()
	<-r.done
}

// crashes are the times at which it ended.
func (r *replica) crashes() []time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]time.Time(nil), r.ended...)
}

func (r *replica) setPlan(change func(*plan)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.plan)
	return r.writePlan()
}

// writePlan replaces the file in one step, because the operator may read it at any moment.
func (r *replica) writePlan() error {
	raw, err := json.Marshal(r.plan)
	if err != nil {
		return err
	}
	path := r.files + ".failpoints"
	return errors.Join(os.WriteFile(path+".new", raw, 0o600), os.Rename(path+".new", path))
}

func (r *replica) setRestart(after time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.restartAfter = after
}

// fired tells whether a rule had its moment.
func (r *replica) fired(id string) bool {
	_, err := os.Stat(fmt.Sprintf("%s.failpoints.fired-%s", r.files, id))
	return err == nil
}
