// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

const (
	// soakTime, soakSize, soakRows and soakPlant are variables of the environment: how long, how many resources, the file for the rows,
	// and whether samples must be invalid.
	soakTime  = "SOAK_TIME"
	soakSize  = "SOAK_SIZE"
	soakRows  = "SOAK_ROWS"
	soakPlant = "SOAK_PLANT"

	soakLife = 6 * time.Minute
	// soakLegacyLife is long enough for the pace of mints, of which there is one in five minutes: a Legacy target that somebody spoils waits for
	// it, and half of a life is time for one mint and the half of another.
	soakLegacyLife = 15 * time.Minute
	// judgedAfter is how long a sample waits for its verdict: all windows that hold it have begun by then, and most have ended.
	judgedAfter = 5 * time.Minute
	// leastSoak is the shortest run whose growth is judged.
	leastSoak = 40 * time.Minute
	// explainedFor is how long after the end of a fault a call through the gateway may fail. A revoke takes 32 s.
	explainedFor = 30 * time.Second
	// hitAgainAfter is the time between two faults that end a token of the same account.
	hitAgainAfter = 10 * time.Minute
)

// soak is a world that goes on for hours.
type soak struct {
	*world

	length   time.Duration
	size     int
	host     *gate // one of WeChat's two hosts
	gateways []*replica
	doors    []string // where the gateways serve
	metrics  map[*replica]string
	clients  []soakClient
	slots    map[*targetRef]int
	// wrong are those whose credentials are wrong at first.
	wrong []*targetRef
	hitAt map[*targetRef]time.Time
	// begun is when everything ran, and ended when a fault last ended an operator.
	begun, ended time.Time

	state sync.Mutex
	// fault is the one under way, and quiet when the last one ended.
	fault string
	quiet time.Time
	// minute has the faults of the minute, and the calls through the gateway.
	minute soakRow
	total  verdict
}

// TestSoak is make soak.
func TestSoak(t *testing.T) {
	length, err := time.ParseDuration(os.Getenv(soakTime))
	if err != nil {
		t.Skip("this takes hours: run make soak")
	}
	size, err := strconv.Atoi(os.Getenv(soakSize))
	if err != nil || size < 20 {
		t.Fatalf("%s must be a number of at least 20: it is %q", soakSize, os.Getenv(soakSize))
	}
	file, err := os.Create(os.Getenv(soakRows))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	s := &soak{length: length, size: size, total: verdict{excluded: map[byte]int{}}, metrics: map[*replica]string{}, slots: map[*targetRef]int{}, hitAt: map[*targetRef]time.Time{}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s.world = newWorld(ctx, t, &scenario{name: "soak", life: soakLife, namespaces: 10}, seed(t))
	s.setUp()
	over, end := context.WithTimeout(ctx, length)
	defer end()
	s.ctx = over
	var running sync.WaitGroup
	running.Go(s.attack)
	running.Go(s.callThroughGateways)
	rows := s.record(json.NewEncoder(file))
	running.Wait()
	age := (length / 24).Minutes() // the first minutes of a process cost more than the others
	if err := judgeSoak(os.Stdout, rows, age, length >= leastSoak); err != nil {
		t.Error(err)
	}
	fmt.Printf("excluded by window: %s; %.1f %% of all samples\n", s.total.windows(), s.total.excludedShare()*100)
	s.check()
}

func (s *soak) setUp() {
	s.collectGarbage()
	s.host = newGate(s.world, strings.TrimPrefix(s.wechat.URL(), "http://"))
	s.doors = []string{s.address(), s.address()}
	endpoints := "--wechat-endpoints=http://" + s.host.addr + "," + s.wechat.URL()
	common := []string{"--zap-log-level=info", "--metrics-secure=false", endpoints}
	s.operate(0, true, plan{}, append(common, "--namespaces=", "--gateway-url=http://"+s.doors[0])...)
	args := s.args
	for range 2 {
		address := s.address()
		s.args = append(slices.Clone(args), "--metrics-bind-address="+address)
		s.operateMore()
		s.metrics[s.replicas[len(s.replicas)-1]] = address
	}
	config, err := env.Gateway(s.ctx, "gateway")
	s.must(err)
	for i, door := range s.doors {
		address := s.address()
		g := startReplica(s.T, filepath.Join(filepath.Dir(operatorBinary), "gateway"), fmt.Sprintf("gateway-%d", i), filesDir,
			newAPIProxy(s.T, config, s.seed+uint64(10+i)), plan{},
			append(common, "--bind-address="+door, "--metrics-bind-address="+address, "--audit-log=")...)
		s.gateways, s.metrics[g] = append(s.gateways, g), address
	}
	for len(s.known()) < s.size {
		s.add(len(s.known()) % slots)
	}
	for _, ref := range s.known() {
		if !ref.until.IsZero() || slices.Contains(s.wrong, ref) {
			continue
		}
		if !s.until(5*time.Minute, func() bool { return s.ready(ref) }) {
			s.Fatalf("%s got no token, so the soak cannot begin", ref.name)
		}
	}
	for _, c := range s.clients {
		if !s.until(2*time.Minute, func() bool { return s.call(c, 0) == nil && s.call(c, 1) == nil }) {
			s.Fatalf("%s cannot call through the gateways: %v", c.name, s.call(c, 0))
		}
	}
	s.begun, s.quiet = time.Now(), time.Now()
}

func (s *soak) address() string {
	address, err := testenv.FreeAddress()
	s.must(err)
	return address
}

// record writes a row for each minute until the time is over, and judges what is left then.
func (s *soak) record(out *json.Encoder) (rows []soakRow) {
	last := map[string]processRow{}
	tokens, calls := len(s.wechat.Tokens("")), s.wechat.Count(wechattest.Filter{})
	rng := rand.New(rand.NewPCG(s.seed, 2))
	judged := time.Now()
	for minute := 1; minute <= int(s.length/time.Minute); minute++ {
		s.sleep(time.Until(s.begun.Add(time.Duration(minute) * time.Minute)))
		row := s.takeMinute()
		row.Minute, row.At = minute, time.Now().UTC()
		for i, r := range slices.Concat(s.replicas, s.gateways) {
			p, err := lookAt(r.name, s.metrics[r], i >= len(s.replicas), last[r.name])
			if err != nil {
				delete(last, r.name) // it was killed, and starts
				continue
			}
			last[r.name] = p
			row.Processes = append(row.Processes, p)
		}
		allTokens, allCalls := len(s.wechat.Tokens("")), s.wechat.Count(wechattest.Filter{})
		row.Tokens, row.WeChatCalls, tokens, calls = allTokens-tokens, allCalls-calls, allTokens, allCalls
		until := time.Now()
		if minute < int(s.length/time.Minute) {
			until = until.Add(-judgedAfter)
		}
		if until.After(judged) {
			s.judge(&row, judged, until, rng)
			judged = until
		}
		rows = append(rows, row)
		s.must(out.Encode(row))
		s.Logf("minute %d: %d tokens, %d samples, %d invalid; gateway: %d calls, %d failed, %d unexplained; %s",
			minute, row.Tokens, row.Samples, row.Invalid, row.GatewayCalls, row.Failed, row.Unexplained, strings.Join(row.Faults, ", "))
	}
	return rows
}

// takeMinute gives the calls and faults of the minute that ends.
func (s *soak) takeMinute() soakRow {
	s.state.Lock()
	defer s.state.Unlock()
	row := s.minute
	s.minute = soakRow{}
	if s.fault != "" {
		s.minute.Faults = []string{s.fault} // it goes on
	}
	return row
}

// judge samples all targets and tickets from one moment to another.
func (s *soak) judge(row *soakRow, from, until time.Time, rng *rand.Rand) {
	e := s.evidence(s.wechat.Calls(wechattest.Filter{Since: from.Add(-2 * soakLife)}))
	v := verdict{excluded: map[byte]int{}}
	for _, ref := range s.known() {
		subject, end := s.subject(ref, e, time.Now())
		if end.After(until) {
			end = until
		}
		if !end.After(from) {
			continue
		}
		row.Resources++
		v.take(ref.name.String(), subject, from, end, rng)
		for _, kind := range ref.tickets {
			v.take(ref.name.String()+" "+string(kind), s.ticketOf(ref, subject, kind, time.Now()), from, end, rng)
		}
	}
	row.Samples, row.Invalid = v.samples, v.invalid
	for kind, n := range v.excluded {
		row.Excluded += n
		s.total.excluded[kind] += n
	}
	s.total.samples += v.samples
	for _, example := range v.examples {
		s.Log(example)
	}
}

// check fails the test if a resource did not get what it asks for, or if a suspended one got something.
func (s *soak) check() {
	for _, ref := range s.known() {
		_, some := (&subject{history: watching.history(ref.name), mode: ref.mode, tokens: s.wechat.Tokens(ref.appID)}).firstToken()
		switch suspended := !ref.until.IsZero() && ref.until.Equal(ref.since); {
		case suspended && some:
			s.Errorf("%s is suspended, and got a token", ref.name)
		case !suspended && ref.until.IsZero() && !some && time.Since(ref.since) > 2*time.Minute:
			s.Errorf("%s never got a token", ref.name)
		}
	}
}
