// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// audited returns the lines that are written for calls.
func audited(t *testing.T, do func(*AuditLog)) []map[string]any {
	t.Helper()
	var out bytes.Buffer
	log := NewAuditLog(&out, func(n int) { t.Errorf("%d lines were dropped", n) })
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		log.Run(ctx)
	}()
	do(log)
	stop()
	<-ended
	var lines []map[string]any
	for line := range strings.Lines(out.String()) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Fatalf("%q: %s", line, err)
		}
		lines = append(lines, fields)
	}
	return lines
}

func target(t *testing.T, raw string) Target {
	t.Helper()
	parsed, err := ParseTarget(raw)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func TestAuditLine(t *testing.T) {
	const secret = "needle-0123456789abcdef"
	client := &Client{
		Name: types.NamespacedName{Namespace: "shop", Name: "api"}, Keys: []Key{{Value: token.NewValue(secret)}},
		Account: &Account{AppID: "wx0123456789abcdef", Token: token.NewValue(secret), AppSecret: token.NewValue(secret)},
	}
	lines := audited(t, func(log *AuditLog) {
		log.Record(&Call{
			ID: "id-1", Started: time.Date(2026, 3, 4, 5, 6, 7, 8e6, time.UTC), Peer: netip.MustParseAddr("10.0.0.1"), Method: "GET",
			Target: target(t, "/cgi-bin/user/info?openid=1&access_token="+secret+"&"+secret+"=1&mine=2"), Kind: KindRelay, By: ByServiceAccount,
			ServiceAccount: "web/shop", Client: client, Outcome: OutcomeRelayed, Errcode: 40003, Status: 200, Attempts: 2, Sent: 3, Received: 4,
			Duration: 1500 * time.Microsecond, Upstream: time.Millisecond,
		})
		log.Record(&Call{Peer: netip.MustParseAddr("10.0.0.1"), Target: target(t, "/"+strings.Repeat("x", 300)), Outcome: OutcomeDenied, Reason: "path"})
	})
	if len(lines) != 2 {
		t.Fatalf("%d lines", len(lines))
	}
	got, err := json.Marshal(lines[0])
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"appid":"wx0123456789abcdef","attempts":2,"by":"service_account","client":"shop/api","duration_ms":1.5,"errcode":40003,` +
		`"id":"id-1","kind":"relay","method":"GET","outcome":"relayed","path":"/cgi-bin/user/info","peer":"10.0.0.1",` +
		`"query":["openid","access_token","other"],"received":4,"sent":3,"service_account":"web/shop","status":200,` +
		`"time":"2026-03-04T05:06:07.008Z","upstream_ms":1}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if path, _ := lines[1]["path"].(string); len(path) != maxAuditPath {
		t.Errorf("the path of a denial has %d characters", len(path))
	}
}

// Whoever is denied again and again fills no disk, and is counted all the same.
func TestAuditOfManyDenials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peer, other := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
		lines := audited(t, func(log *AuditLog) {
			for range 100 {
				log.Record(&Call{Peer: peer, Outcome: OutcomeDenied, Reason: "key"})
			}
			log.Record(&Call{Peer: other, Outcome: OutcomeDenied, Reason: "key"})
			log.Record(&Call{Peer: peer, Outcome: OutcomeRelayed})
			time.Sleep(2*deniedPeriod + time.Second)
			log.Record(&Call{Peer: peer, Outcome: OutcomeLimited, Reason: "rate"})
		})
		count, suppressed := map[any]int{}, 0.0
		for _, l := range lines {
			count[l["peer"]]++
			if n, ok := l["suppressed"].(float64); ok {
				suppressed += n
			}
		}
		// 20 denials, the call that was relayed, the count of the others, and the denial in a new period.
		if count["10.0.0.1"] != deniedLines+3 || count["10.0.0.2"] != 1 || suppressed != 100-deniedLines {
			t.Errorf("%v lines, %v denials are only counted", count, suppressed)
		}
	})
}

func TestAuditOfManyPeers(t *testing.T) {
	log := NewAuditLog(&bytes.Buffer{}, func(int) {})
	now := time.Now()
	peer := netip.MustParseAddr("10.0.0.1")
	for range 3 * deniedPeers {
		log.count(peer, now)
		peer = peer.Next()
	}
	if n := len(log.denied); n > deniedPeers+1 {
		t.Errorf("%d peers are remembered", n)
	}
	log.flush(now.Add(deniedPeriod))
	if n := len(log.denied); n != 0 {
		t.Errorf("%d peers are remembered after their time", n)
	}
}

// blocked is a log that takes nothing until it is opened.
type blocked chan struct{}

func (b blocked) Write(p []byte) (int, error) {
	<-b
	return len(p), nil
}

// A log that takes nothing holds up no call for longer than a second, and only the first ones.
func TestBlockedAudit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := make(blocked)
		var dropped atomic.Int64
		log := NewAuditLog(sink, func(n int) { dropped.Add(int64(n)) })
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			log.Run(ctx)
		}()
		call := &Call{Outcome: OutcomeRelayed}
		log.Record(call)
		synctest.Wait() // the first line is being written
		began := time.Now()
		for range queuedLines + 10 {
			log.Record(call)
		}
		if took := time.Since(began); took != blockedAfter || dropped.Load() != 10 {
			t.Errorf("the calls waited %s, and %d lines were dropped", took, dropped.Load())
		}
		close(sink)
		synctest.Wait()
		log.Record(call)
		if dropped.Load() != 10 {
			t.Errorf("%d lines were dropped after the log works again", dropped.Load())
		}
		stop()
		<-ended
	})
}
