// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"encoding/json"
	"io"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	// maxAuditPath bounds the path of a call that was denied, whose sender may be anybody.
	maxAuditPath = 128
	// deniedLines is how many denials of one peer are written in deniedPeriod. The others are counted.
	deniedLines  = 20
	deniedPeriod = 10 * time.Second
	// deniedPeers is the number of peers whose denials are counted apart. All others count as one.
	deniedPeers = 4096
)

// auditLine is a line of the audit log. It has no value of any parameter or header.
type auditLine struct {
	Time           string   `json:"time"`
	ID             string   `json:"id,omitempty"`
	Peer           string   `json:"peer,omitempty"`
	Method         string   `json:"method,omitempty"`
	Path           string   `json:"path,omitempty"`
	Query          []string `json:"query,omitempty"`
	Kind           Kind     `json:"kind,omitempty"`
	By             By       `json:"by,omitempty"`
	ServiceAccount string   `json:"service_account,omitempty"`
	Client         string   `json:"client,omitempty"`
	AppID          string   `json:"appid,omitempty"`
	Outcome        Outcome  `json:"outcome"`
	Reason         string   `json:"reason,omitempty"`
	Errcode        int      `json:"errcode,omitempty"`
	Status         int      `json:"status,omitempty"`
	Attempts       int      `json:"attempts,omitempty"`
	Sent           int64    `json:"sent,omitempty"`
	Received       int64    `json:"received,omitempty"`
	// DurationMS and UpstreamMS are in milliseconds.
	DurationMS float64 `json:"duration_ms"`
	UpstreamMS float64 `json:"upstream_ms,omitempty"`
	// Suppressed is the number of calls that were denied before and have no line of their own.
	Suppressed int `json:"suppressed,omitempty"`
}

// AuditLog writes a line of JSON for each call and each denial. It is safe for concurrent use.
type AuditLog struct {
	lines *lineWriter
	now   func() time.Time

	mu     sync.Mutex
	denied map[netip.Addr]*denials
}

// denials are those of one peer in the present period.
type denials struct {
	since               time.Time
	written, suppressed int
}

// NewAuditLog returns a log that writes to w. dropped is called with the number of lines that are lost because w takes no more.
func NewAuditLog(w io.Writer, dropped func(lines int)) *AuditLog {
	return &AuditLog{lines: newLineWriter(w, dropped), now: time.Now, denied: map[netip.Addr]*denials{}}
}

// Run writes the lines until ctx ends, and then those that are left.
func (a *AuditLog) Run(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.lines.run(ctx)
	}()
	ticker := time.NewTicker(deniedPeriod)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			a.flush(a.now())
		case <-done:
			return
		}
	}
}

// Record writes a call down. If the log is blocked it waits for at most a second, and then drops the line.
func (a *AuditLog) Record(c *Call) {
	now := a.now()
	suppressed := 0
	if refused := c.Outcome == OutcomeDenied || c.Outcome == OutcomeLimited; refused {
		write := false
		if write, suppressed = a.count(c.Peer, now); !write {
			return
		}
	}
	l := auditLine{
		Time: timeOf(c.Started), ID: c.ID, Peer: c.Peer.String(), Method: cut(c.Method, 16), Path: c.Target.Path, Query: knownKeys(c.Target.Keys()),
		Kind: c.Kind, By: c.By, ServiceAccount: c.ServiceAccount, Outcome: c.Outcome, Reason: c.Reason, Errcode: c.Errcode, Status: c.Status,
		Attempts: c.Attempts, Sent: c.Sent, Received: c.Received, DurationMS: millis(c.Duration), UpstreamMS: millis(c.Upstream),
		Suppressed: suppressed,
	}
	if c.Outcome == OutcomeDenied {
		l.Path = cut(l.Path, maxAuditPath)
	}
	if c.Client != nil {
		l.Client, l.AppID = c.Client.Name.String(), c.Client.Account.AppID
	}
	a.write(l)
}

func (a *AuditLog) write(l auditLine) {
	line, err := json.Marshal(l)
	if err != nil {
		return // never: the line has text and numbers alone
	}
	a.lines.add(append(line, '\n'))
}

// count counts a denial of a peer. It reports whether it has a line of its own, and how many before it have none.
func (a *AuditLog) count(peer netip.Addr, now time.Time) (write bool, suppressed int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	d := a.denied[peer]
	if d == nil && len(a.denied) >= deniedPeers {
		peer = netip.Addr{}
		d = a.denied[peer]
	}
	if d == nil {
		d = &denials{since: now}
		a.denied[peer] = d
	}
	if now.Sub(d.since) >= deniedPeriod {
		suppressed = d.suppressed
		*d = denials{since: now}
	}
	if d.written == deniedLines {
		d.suppressed++
		return false, 0
	}
	d.written++
	return true, suppressed
}

// flush forgets the peers whose period is over, and writes a line for each that has denials without one.
func (a *AuditLog) flush(now time.Time) {
	var lines []auditLine
	a.mu.Lock()
	for peer, d := range a.denied {
		if now.Sub(d.since) < deniedPeriod {
			continue
		}
		delete(a.denied, peer)
		if d.suppressed > 0 {
			l := auditLine{Time: timeOf(now), Outcome: OutcomeDenied, Reason: reasonSuppressed, Suppressed: d.suppressed}
			if peer.IsValid() {
				l.Peer = peer.String()
			}
			lines = append(lines, l)
		}
	}
	a.mu.Unlock()
	for _, l := range lines {
		a.write(l)
	}
}

// reasonSuppressed is the reason of a line that counts denials without a line of their own.
const reasonSuppressed = "suppressed"

// knownKeys returns the parameters of WeChat's API among the keys, and "other" once for all others. Callers choose keys freely, and could
// write into the log what they are.
func knownKeys(keys []string) []string {
	known := make([]string, 0, len(keys))
	for _, key := range keys {
		if !isKnownKey(key) {
			key = otherPath
		}
		if key != otherPath || !slices.Contains(known, otherPath) {
			known = append(known, key)
		}
	}
	return known
}

// isKnownKey reports whether WeChat documents a parameter.
func isKnownKey(key string) bool {
	switch key {
	case accessTokenKey, "appid", "secret", "grant_type", "js_code", "code", "refresh_token", "openid", "lang", "type", "media_id",
		"next_openid", "begin_date", "end_date", "kf_account", "media", "ticket", "agentid", "page", "scope", "signature", "sig_method",
		"session_key", "unionid", "id", "cursor", "limit", "offset":
		return true
	}
	return false
}

func timeOf(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z07:00") }

func millis(d time.Duration) float64 {
	return float64(d.Round(10*time.Microsecond)) / float64(time.Millisecond)
}

func cut(text string, most int) string { return text[:min(len(text), most)] }
