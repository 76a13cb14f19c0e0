// SPDX-License-Identifier: Apache-2.0

//go:build failpoint

package failpoint

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// FileVariable names the environment variable with the path of the file that controls this process. The file holds a Plan
// and is read anew at each step, so that it can be changed while the process runs.
const FileVariable = "WECHAT_TOKEN_OPERATOR_FAILPOINTS"

// Plan is what is to go wrong.
type Plan struct {
	// Rules are tried in order.
	Rules []Rule `json:"rules,omitempty"`
	// Off lists protections to do without.
	Off []string `json:"off,omitempty"`
	// Offset is added to the wall clock.
	Offset time.Duration `json:"offset,omitempty"`
}

// Rule ends or stops the process at a step.
type Rule struct {
	// ID is unique in a test: a rule fires once, in whichever process comes first.
	ID   string `json:"id"`
	Step string `json:"step"`
	// Nth makes every Nth hit of the step count; 0 means each.
	Nth int `json:"nth,omitempty"`
	// Probability of a hit to count, drawn from Seed; 0 means always.
	Probability float64 `json:"probability,omitempty"`
	Seed        uint64  `json:"seed,omitempty"`
	// Stop sends SIGSTOP in place of SIGKILL.
	Stop bool `json:"stop,omitempty"`
}

// hits counts the steps of this process.
var hits = struct {
	sync.Mutex
	byStep map[string]int
}{byStep: map[string]int{}}

// Hit is a named step. It may be this process's last: SIGKILL leaves no time for anything.
func Hit(step string) {
	hits.Lock()
	hits.byStep[step]++
	n := hits.byStep[step]
	hits.Unlock()
	for _, r := range load().Rules {
		if r.Step == step && r.counts(n) && r.claim(step) {
			r.fire()
		}
	}
}

func (r Rule) counts(n int) bool {
	if r.Probability > 0 && rand.New(rand.NewPCG(r.Seed, uint64(n))).Float64() >= r.Probability {
		return false
	}
	return r.Nth == 0 || n%r.Nth == 0
}

// claim makes sure that the rule fires once, and leaves a note of it for the test.
func (r Rule) claim(step string) bool {
	note, err := os.OpenFile(os.Getenv(FileVariable)+".fired-"+r.ID, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return false
	}
	_, _ = fmt.Fprintf(note, "%d %s", os.Getpid(), step)
	return note.Close() == nil
}

func (r Rule) fire() {
	signal := syscall.SIGKILL
	if r.Stop {
		signal = syscall.SIGSTOP
	}
	_ = syscall.Kill(os.Getpid(), signal)
	for !r.Stop {
		time.Sleep(time.Hour) // the signal is on its way
	}
}

// Off tells whether a protection is switched off.
func Off(protection string) bool { return slices.Contains(load().Off, protection) }

// Wall is the wall clock with the offset of the file.
func Wall() func() time.Time {
	return func() time.Time { return time.Now().Add(load().Offset) }
}

// load gives an empty plan when there is no file: nothing goes wrong then.
func load() (plan Plan) {
	raw, err := os.ReadFile(os.Getenv(FileVariable))
	if err != nil {
		return Plan{}
	}
	if err := json.Unmarshal(raw, &plan); err != nil {
		panic("the file of failpoints is no JSON: " + err.Error())
	}
	return plan
}
