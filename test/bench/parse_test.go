// SPDX-License-Identifier: Apache-2.0

package main

import (
	"maps"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

func TestParseCPU(t *testing.T) {
	// proc_pid_stat(5): the second field is the program's name, which may be anything.
	const stat = "1234 (a) b (c) S 1 1234 1234 0 -1 4194560 900 0 3 0 250 50 7 8 20 0 9 0 5000 1000000 2000"
	got, err := parseCPU(stat)
	if err != nil || got != 3*time.Second {
		t.Errorf("got %s, %v, want 3s: 250 and 50 hundredths", got, err)
	}
	for _, bad := range []string{"", "1234 (a) S 1", strings.Replace(stat, "250", "x", 1), strings.Replace(stat, " 50 ", " y ", 1)} {
		if got, err := parseCPU(bad); err == nil {
			t.Errorf("%q gave %s", bad, got)
		}
	}
}

func TestParseMemory(t *testing.T) {
	got, err := parseMemory("Name:\tx\nVmHWM:\t  2048 kB\nVmRSS:\t  1024 kB\nRssAnon:\t 512 kB\nThreads:\t5\n")
	if err != nil || got != (memory{Resident: 1 << 20, Peak: 2 << 20, Anonymous: 1 << 19}) {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, bad := range []string{"", "VmRSS: 1 kB\n", "VmRSS: x kB\nVmHWM: 1 kB\n"} {
		if got, err := parseMemory(bad); err == nil {
			t.Errorf("%q gave %+v", bad, got)
		}
	}
}

// This process is a process too.
func TestMeasuresALiveProcess(t *testing.T) {
	p, err := launch("sleep", t.TempDir()+"/log", nil, "/bin/sleep", "60")
	must(t, err)
	m, err := p.memory()
	if err != nil || m.Resident < 1<<12 || m.Peak < m.Resident {
		t.Errorf("memory %+v, %v", m, err)
	}
	if _, err := p.cpu(); err != nil {
		t.Error(err)
	}
	must(t, p.kill())
	if _, err := os.Stat(p.log); err != nil {
		t.Error(err)
	}
}

func TestQuantiles(t *testing.T) {
	values := make([]time.Duration, 0, 200)
	for i := 200; i > 0; i-- {
		values = append(values, time.Duration(i)*time.Second)
	}
	got := quantilesOf(values)
	if got.P50 != 100 || got.P99 != 198 || got.Max != 200 || len(got.Percentiles) != 101 || got.Percentiles[0] != 1 {
		t.Errorf("got %+v", got)
	}
	if got := quantilesOf([]time.Duration{time.Second}); got.P50 != 1 || got.P99 != 1 || got.Max != 1 {
		t.Errorf("of one: %+v", got)
	}
	if got := quantilesOf(nil); got.P50 != 0 || got.Max != 0 {
		t.Errorf("of none: %+v", got)
	}
}

func TestRate(t *testing.T) {
	start := time.Unix(0, 0)
	if got := rateOf([]time.Time{start, start.Add(time.Second), start.Add(2 * time.Second)}); got != 1 {
		t.Errorf("three tokens in two seconds: %v, want 1 per second", got)
	}
	if got := rateOf([]time.Time{start}); got != 0 {
		t.Errorf("one token has the rate %v", got)
	}
}

func TestKindOfRequest(t *testing.T) {
	for request, want := range map[string]string{
		"POST /api/v1/namespaces/a/secrets":                                                "POST secrets",
		"GET /api/v1/namespaces/a/secrets/b":                                               "GET secrets",
		"GET /api/v1/secrets?watch=true":                                                   "WATCH secrets",
		"GET /api/v1/secrets?limit=500":                                                    "LIST secrets",
		"PATCH /apis/wechat.apptoken.dev/v1alpha1/namespaces/a/wechatapptokens/b/status":   "PATCH wechatapptokens/status",
		"POST /apis/events.k8s.io/v1/namespaces/a/events":                                  "POST events",
		"PUT /apis/coordination.k8s.io/v1/namespaces/default/leases/wechat-token-operator": "",
		"POST /api/v1/namespaces":                                                          "",
		"GET /metrics":                                                                     "",
	} {
		method, target, _ := strings.Cut(request, " ")
		if got := kindOf(httptest.NewRequest(method, target, nil)); got != want {
			t.Errorf("%s is %q, want %q", request, got, want)
		}
	}
}

const someMetrics = `# TYPE apiserver_request_total counter
apiserver_request_total{code="201",group="",resource="secrets",subresource="",verb="POST"} 5
apiserver_request_total{code="409",group="",resource="secrets",subresource="",verb="POST"} 2
apiserver_request_total{code="201",dry_run="All",group="",resource="secrets",subresource="",verb="POST"} 3
apiserver_request_total{code="200",group="g",resource="wechatapptokens",subresource="status",verb="PATCH"} 4
apiserver_request_total{code="200",group="coordination.k8s.io",resource="leases",subresource="",verb="PUT"} 9
# TYPE other counter
other{resource="secrets",verb="POST"} 100
`

func TestParseRequests(t *testing.T) {
	got, err := parseRequests([]byte(someMetrics))
	want := counts{"POST secrets": 7, "PATCH wechatapptokens/status": 4}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, %v, want %v: all codes, and no leases", got, err, want)
	}
	for _, bad := range []string{"", "# TYPE other counter\nother 1\n", "{"} {
		if got, err := parseRequests([]byte(bad)); err == nil {
			t.Errorf("%q gave %v", bad, got)
		}
	}
}

func TestBetweenSubtractsOwnRequestsAndNoise(t *testing.T) {
	start := time.Unix(0, 0)
	before := look{at: start, total: counts{"POST secrets": 10, "GET secrets": 1}, own: counts{"POST secrets": 3}}
	after := look{
		at:    start.Add(10 * time.Second),
		total: counts{"POST secrets": 30, "GET secrets": 6, "PATCH secrets": 2, "WATCH secrets": 4, "LIST secrets": 2},
		own:   counts{"POST secrets": 8},
	}
	got := between(before, after, counts{"GET secrets": 0.5})
	want := counts{"POST secrets": 15, "PATCH secrets": 2, "LIST secrets": 2}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if sum := got.per(2).sum(); sum != 8.5 {
		t.Errorf("the sum per token is %v, want 8.5: lists are not per token", sum)
	}
}

// dueOf must find the time that the operator had in mind: from the last answer before it, in whole seconds.
func TestDueOf(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	tok := wechattest.IssuedToken{Token: "92_token", IssuedAt: start, ExpiresAt: start.Add(400 * time.Second)}
	dueAfter := func(checked time.Duration) time.Time {
		at := start.Add(checked)
		return refresh.DueAt(refresh.Inputs{UID: "uid", Traits: refresh.Stable(), Token: refresh.Token{
			Fingerprint: token.NewValue(tok.Token).Fingerprint(),
			IssuedAt:    start, ExpiresAt: at.Add((400*time.Second - checked).Truncate(time.Second)), CheckedAt: at,
		}})
	}
	call := func(at time.Duration, minted bool) wechattest.Call {
		return wechattest.Call{Clock: start.Add(at), Minted: minted, Finished: true}
	}
	const checked = 20300 * time.Millisecond
	failed := call(50*time.Second, false)
	failed.Errcode = -1
	for name, calls := range map[string][]wechattest.Call{
		"the due call mints":               {call(0, true), call(checked, false), call(117*time.Second, true)},
		"the due call gets the old token":  {call(0, true), call(checked, false), call(119*time.Second, false), call(125*time.Second, true)},
		"a failure before it says nothing": {call(0, true), call(checked, false), failed, call(119*time.Second, true)},
	} {
		if got, err := dueOf("uid", tok, calls); err != nil || !got.Equal(dueAfter(checked)) {
			t.Errorf("%s: due at %s, %v, want %s", name, got, err, dueAfter(checked))
		}
	}
	const late = 99500 * time.Millisecond // 300 s of life are left after it, but the token had more
	if got, err := dueOf("uid", tok, []wechattest.Call{call(0, true), call(late, false), call(117*time.Second, true)}); err != nil ||
		!got.Equal(dueAfter(late)) || got.Sub(start) > 120*time.Second {
		t.Errorf("a check just before it: due at %s, %v, want %s", got, err, dueAfter(late))
	}
	if got, err := dueOf("uid", tok, []wechattest.Call{call(0, true)}); err == nil {
		t.Errorf("a token that nobody replaced was due at %s", got)
	}
}
