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

// FileVariable is the environment variable with the path of the file that controls this process. The file holds a Plan. It is read
// again at each step, so that it can be changed while the process runs.
const FileVariable = "WECHAT_TOKEN_OPERATOR_FAILPOINTS"

// Plan is the content of the file.
type Plan struct {
	// Rules are applied in order.
	Rules []Rule `json:"rules,omitempty"`
	// Off lists the protections that are switched off.
	Off []string `json:"off,omitempty"`
	// Offset is added to the wall clock.
	Offset time.Duration `json:"offset,omitempty"`
}

// Rule kills or stops the process at a step.
type Rule struct {
	// ID identifies the rule within a test. A rule fires once, in the first process that meets its conditions.
	ID   string `json:"id"`
	Step string `json:"step"`
	// Nth limits the rule to every Nth hit of the step. 0 stands for every hit.
	Nth int `json:"nth,omitempty"`
	// Probability is that of a hit to count, drawn from Seed. 0 stands for certainty.
	Probability float64 `json:"probability,omitempty"`
	Seed        uint64  `json:"seed,omitempty"`
	// Stop makes the rule send SIGSTOP instead of SIGKILL.
	Stop bool `json:"stop,omitempty"`
}

// hits counts the hits of each step in this process.
var hits = struct {
	sync.Mutex
	byStep map[string]int
}{byStep: map[string]int{}}

// Hit marks a step that has a name. It does not return if a rule kills the process there.
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

// claim reports whether the rule may fire. It creates a file that only the first process can create, and that tells the test.
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
		time.Sleep(time.Hour) // until the signal arrives
	}
}

// Off reports whether a protection is switched off.
func Off(protection string) bool { return slices.Contains(load().Off, protection) }

// Wall returns a wall clock with the offset from the file.
func Wall() func() time.Time {
	return func() time.Time { return time.Now().Add(load().Offset) }
}

// load reads the file. Without a file it returns an empty plan, with which nothing goes wrong.
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
