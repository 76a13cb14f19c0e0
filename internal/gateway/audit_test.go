// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/internal/file"
)

// at is when the tests' calls start.
var at = time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)

func parsed(t testing.TB, raw string) Target {
	t.Helper()
	target, err := ParseTarget(raw)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

// TestAuditLine asserts whole lines.
func TestAuditLine(t *testing.T) {
	relayed := &Call{
		ID: "id-1", Started: at, Peer: netip.MustParseAddr("fe80::1%eth0"), Method: "POST", By: ByServiceAccount, ServiceAccount: "web/shop-api",
		Target: parsed(t, "/wxa/msg_sec_check?access_token="+gatewayText+"&evil=1&worse=2&openid="+staleToken), Client: holding(staleToken),
		Outcome: OutcomeRelayed, Status: 200, Attempts: 2, Sent: 10, Received: 20, Spent: Spent{Duration: 1500 * time.Millisecond, Upstream: 1234567 * time.Nanosecond},
	}
	denied := &Call{
		ID: "id-2", Started: at, Method: "PROPFIND\"}{\nEVIL-AND-VERY-LONG", Target: parsed(t, "/"+strings.Repeat("a", 300)),
		Outcome: OutcomeDenied, Reason: "method", Errcode: 43002, Status: 200,
	}
	for want, c := range map[string]*Call{
		`{"time":"2026-01-02T03:04:05.678Z","id":"id-1","peer":"fe80::1","client":"shop/shop-api","by":"service_account",` +
			`"serviceAccount":"web/shop-api","method":"POST","path":"/wxa/msg_sec_check","query":["access_token","other","openid"],` +
			`"outcome":"relayed","errcode":0,"status":200,"attempts":2,"sent":10,"received":20,"duration":1.500000,"upstream":0.001235}`: relayed,
		`{"time":"2026-01-02T03:04:05.678Z","id":"id-2","method":"PROPFIND?}{?EVIL","path":"/` + strings.Repeat("a", 127) + `",` +
			`"outcome":"denied","reason":"method","errcode":43002,"status":200,"attempts":0,"sent":0,"received":0,"duration":0.000000,` +
			`"upstream":0.000000}`: denied,
	} {
		line := string(appendCall(nil, c, 0))
		if line != want+"\n" {
			t.Errorf("line\n%s, want\n%s", line, want)
		}
		if !json.Valid([]byte(line)) {
			t.Errorf("no JSON: %s", line)
		}
		silent(t, "the line", line)
	}
}

// sink is a sink whose writes can be held up.
type sink struct {
	mu    sync.Mutex
	text  strings.Builder
	err   error
	holds chan struct{}
}

func (s *sink) Write(p []byte) (int, error) {
	if s.holds != nil {
		<-s.holds
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, s.err
	}
	return s.text.Write(p)
}

// TestAuditBlocked: a sink that takes nothing holds one call up for a second, and no others. What it did not take is counted.
func TestAuditBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{holds: make(chan struct{})}
		a := NewAudit(s, time.Now)
		c := &Call{ID: "x", Started: at, Outcome: OutcomeRelayed}
		a.Record(c)
		time.Sleep(auditGather)
		synctest.Wait() // the writer has taken one
		begun := time.Now()
		for range auditQueue {
			a.Record(c)
		}
		if took := time.Since(begun); took != 0 || a.Dropped() != 0 {
			t.Errorf("it took %v to fill the queue, and %d lines were dropped", took, a.Dropped())
		}
		for range 3 {
			a.Record(c)
		}
		if took := time.Since(begun); took != time.Second || a.Dropped() != 3 {
			t.Errorf("it took %v to drop %d lines", took, a.Dropped())
		}
		close(s.holds)
		synctest.Wait()
		a.Record(c)
		a.Close()
		a.Record(c) // too late
		if got := strings.Count(s.text.String(), "\n"); got != auditQueue+2 || a.Dropped() != 4 {
			t.Errorf("%d lines were written and %d dropped", got, a.Dropped())
		}
	})
}

// TestAuditFails: lines that the sink refuses are counted.
func TestAuditFails(t *testing.T) {
	s := &sink{err: errors.New("disk full")}
	a := NewAudit(s, time.Now)
	a.Record(&Call{Started: at, Outcome: OutcomeRelayed})
	a.Close()
	if a.Dropped() != 1 {
		t.Errorf("%d lines were dropped, want 1", a.Dropped())
	}
}

// TestAuditDenials: a peer that is denied all the time has few lines, which say how many are missing, and takes none from others.
func TestAuditDenials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		a := NewAudit(s, time.Now)
		evil, other := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
		deny := func(peer netip.Addr, n int) {
			for range n {
				a.Record(&Call{Started: at, Peer: peer, Outcome: OutcomeDenied})
			}
		}
		lines := func(part string) int {
			time.Sleep(auditGather)
			synctest.Wait()
			s.mu.Lock()
			defer s.mu.Unlock()
			return strings.Count(s.text.String(), part)
		}
		deny(evil, 1000)
		deny(other, 1)
		if got := lines("10.0.0.1"); got != denialBurst {
			t.Errorf("%d lines, want %d", got, denialBurst)
		}
		if lines("10.0.0.2") != 1 || lines("suppressed") != 0 {
			t.Errorf("lines: %s", s.text.String())
		}
		time.Sleep(time.Second)
		deny(evil, 11)
		if lines(`"suppressed":980}`) != 1 || lines("10.0.0.1") != denialBurst+1 {
			t.Errorf("lines: %s", s.text.String())
		}
		for range 100 {
			a.Record(&Call{Started: at, Peer: evil, Outcome: OutcomeRelayed}) // no denial
		}
		if got := lines("relayed"); got != 100 {
			t.Errorf("%d lines of calls that were relayed", got)
		}
		time.Sleep(2 * time.Minute)
		deny(other, 1)
		if got := lines(`"peer":"10.0.0.1","suppressed":10}`); got != 1 {
			t.Errorf("%d lines about the quiet peer: %s", got, s.text.String())
		}
		for i := range 2 * maxAuditPeers {
			deny(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 1)
		}
		if got := len(a.denials.byPeer); got > maxAuditPeers+1 {
			t.Errorf("%d peers are kept", got)
		}
		a.Close()
	})
}

func TestOpenAudit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	for i := range 2 { // the second time it appends
		f, err := OpenAudit(path)
		if err != nil {
			t.Fatal(err)
		}
		a := NewAudit(f, time.Now)
		a.Record(&Call{ID: fmt.Sprint(i), Started: at})
		a.Close()
		_ = f.Close()
	}
	text, err := file.Read(path)
	if err != nil || strings.Count(string(text), "\n") != 2 {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := OpenAudit(filepath.Join(path, "none")); err == nil || !strings.HasPrefix(err.Error(), "--audit-log: ") {
		t.Errorf("error %v", err)
	}
}
