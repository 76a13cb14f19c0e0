// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	vocab "github.com/wechat-token-operator/wechat-token-operator/internal/token"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// matrix is one row in one mode.
type matrix struct {
	*world

	clerk  *clerk
	answer answer
	mode   v1alpha1.Mode
}

func newMatrix(t *testing.T, c *clerk, mode v1alpha1.Mode) *matrix {
	t.Helper()
	m := &matrix{world: newWorld(t), clerk: c, mode: mode}
	m.Client = notingClient{m.Client, c}
	return m
}

// conditions are the reasons of those that are there, by type.
type conditions map[string]string

const (
	tenMinutes = 10 * time.Minute
	// slack is for a machine that is busy; the clock goes on in real time.
	slack = 4 * time.Second
	// handoverLimit is the longest back-off in the handover window, in seconds.
	handoverLimit = 10
)

func (m *matrix) endpoint() wechattest.Endpoint {
	if m.mode == v1alpha1.ModeLegacy {
		return wechattest.EndpointLegacy
	}
	return wechattest.EndpointStable
}

func (m *matrix) legacy() bool { return m.mode == v1alpha1.ModeLegacy }

// lost: in Legacy mode each failure may have been a mint, and the bucket of mints has the last word: three at once, then
// one in five minutes.
func (m *matrix) lost() bool { return m.legacy() && m.answer.lost }

// fail makes an endpoint give the row's answer from now on. The client gives up sooner where there is none.
func (s *subject) fail(endpoint wechattest.Endpoint) {
	s.Helper()
	fault := s.answer.fault
	fault.AppID, fault.Endpoint = s.app, endpoint
	s.wechat.Inject(fault)
	s.restart(s.timeout())
}

func (m *matrix) timeout() time.Duration {
	if m.answer.fault.Hang {
		return 100 * time.Millisecond
	}
	return 10 * time.Second
}

// issued runs until the subject has its token, and gives the data of its Secret.
func (s *subject) issued() map[string][]byte {
	s.Helper()
	s.run(0)
	s.expect("at first", conditions{"Ready": "TokenValid"}, true)
	return maps.Clone(s.secret(s.name).Data)
}

// failures runs until the first call that fails and for a span of time after it, and gives the calls.
func (s *subject) failures(within, after time.Duration) []wechattest.Call {
	s.Helper()
	before := len(s.calls())
	if !s.runUntil(within, func() bool { return len(s.calls()) > before }) {
		s.Fatalf("%s: no call within %s", s.name, within)
	}
	s.run(s.calls()[before].Clock.Add(after).Sub(s.clock.now()))
	return s.calls()[before:]
}

// whileValid: the checks of a valid Stable token fail.
func (m *matrix) whileValid() {
	s := m.subject("valid", 30*time.Second)
	data := s.issued()
	writes, secrets := s.statusWrites(), s.secretWrites()
	s.fail("")
	calls := s.failures(46*time.Second, tenMinutes)
	p := m.answer.pace
	s.inSpan("calls in ten minutes", len(calls), p.calls)
	s.gaps(calls, 0)
	want := conditions{"Ready": "TokenValid", "RefreshFailing": m.answer.reason}
	s.expect("outside the window", want, p.class == vocab.Action)
	s.lastError(calls, 0)
	s.written("outside the window", writes, len(calls), span{p.silent, p.silent})
	s.restarts(p.restarts)
	s.expect("after restarts", want, p.class == vocab.Action)
	s.announced(v1alpha1.EventRefreshFailed)
	s.untouched(data, s.secretWrites()-secrets)
}

// whileProbed: what WeChat says to a probe means nothing to a valid Legacy token, unless it rejects the token.
func (m *matrix) whileProbed() {
	if m.answer.fault.Errcode == 40001 {
		return // it does
	}
	s := m.subject("probed", 30*time.Second)
	data := s.issued()
	writes, secrets := s.statusWrites(), s.secretWrites()
	// The first answer after a start tells the time, without which a probe that fails is a failure.
	s.restart(m.timeout())
	s.run(46 * time.Second)
	fault := m.answer.fault
	fault.AppID, fault.Endpoint = s.app, wechattest.EndpointProbe
	m.wechat.Inject(fault)
	probes := func() int {
		return m.wechat.Count(wechattest.Filter{AppID: s.app, Endpoint: wechattest.EndpointProbe})
	}
	before := probes()
	s.run(tenMinutes)
	s.inSpan("probes in ten minutes", probes()-before, span{16, 23})
	s.expect("probed", conditions{"Ready": "TokenValid"}, false)
	if n := s.statusWrites() - writes; n != 0 {
		s.Errorf("probes that fail cost %d status writes", n)
	}
	if n := len(s.calls()); n != 1 {
		s.Errorf("%d mints, want the first alone", n)
	}
	s.announced()
	s.untouched(data, s.secretWrites()-secrets)
}

// whileDue: the replacement of a token fails from the moment it is due until some time after its expiry.
func (m *matrix) whileDue() {
	s := m.subject("due", 45*time.Minute) // so that no check comes after T - 300 s, which would replace the token earlier
	data := s.issued()
	secrets := s.secretWrites()
	expiry := s.token(s.name).Status.Token.ExpirationTime.Time
	due := s.token(s.name).Status.NextRefreshTime.Time
	s.run(due.Add(-2 * time.Second).Sub(s.clock.now()))
	s.fail(s.endpoint())
	writes, before := s.statusWrites(), len(s.calls())
	early := s.failures(30*time.Second, 2*time.Minute)
	want := conditions{"Ready": "TokenValid", "RefreshFailing": m.answer.reason}
	p := m.answer.pace
	s.expect("in the window", want, p.class == vocab.Action)
	s.lastError(early, handoverLimit)
	// The first retries come within two seconds, some of them before the token is due. The time that is published is cut to whole seconds.
	sooner := 0
	for _, c := range early {
		if c.Clock.Before(due.Add(2 * time.Second)) {
			sooner++
		}
	}
	s.written("in the window", writes, len(early), span{min(p.silent, 1), min(p.silent, max(sooner, 1))})
	if !m.lost() {
		s.gaps(early, handoverLimit)
		inside := p.restartsInside
		if m.legacy() {
			inside[0] = 0 // each process waits for the mark of the one before it
		}
		s.restarts(inside)
	}
	s.run(expiry.Add(-time.Second).Sub(s.clock.now()))
	s.expect("just before the expiry", want, p.class == vocab.Action)
	inWindow := len(s.calls()) - before
	switch {
	case m.lost():
		// Three at once and one by the pace, then one in 20 s for the last five minutes.
		s.inSpan("mints in the window", inWindow, span{15, 20})
		s.paced(s.calls()[before:], expiry.Add(-5*time.Minute))
	case m.legacy():
		s.inSpan("mints in the window", inWindow, p.legacyHandover)
	default:
		s.inSpan("calls in the window", inWindow, p.handover)
	}
	s.run(6 * time.Second)
	without := s.withoutValidToken()
	s.expect("5 s after the expiry", without, true)
	s.run(expiry.Add(5 * time.Minute).Sub(s.clock.now()))
	s.expect("5 min after the expiry", without, true)
	s.announced(v1alpha1.EventRefreshFailed)
	writes = s.secretWrites() - secrets
	if m.legacy() {
		s.inSpan("marks", writes, span{1, 2 * len(s.calls())}) // metadata alone; the data is compared
		writes = 0
	}
	s.untouched(data, writes)
}

func (m *matrix) withoutValidToken() conditions {
	progress := "Reconciling"
	if m.answer.pace.class == vocab.Action {
		progress = "Stalled"
	}
	return conditions{"Ready": m.answer.reason, progress: m.answer.reason, "RefreshFailing": m.answer.reason}
}

// withoutToken: the first call fails, and so do those after it, until WeChat is well again.
func (m *matrix) withoutToken() {
	s := m.subject("never", 30*time.Second)
	s.fail(s.endpoint())
	p := m.answer.pace
	calls := s.failures(0, tenMinutes)
	if m.lost() {
		s.inSpan("mints in ten minutes", len(calls), span{3, 5})
	} else {
		s.inSpan("calls in ten minutes", len(calls), p.calls)
		s.gaps(calls, 0)
	}
	s.expect("without a token", m.withoutValidToken(), true)
	s.lastError(calls, 0)
	s.written("without a token", 0, len(calls), span{min(p.silent, 1), min(p.silent, 1)})
	s.restarts(p.restartsWithout)
	s.expect("after restarts", m.withoutValidToken(), true)
	s.announced(v1alpha1.EventRefreshFailed)
	if n := s.secretWrites(); n != 0 || s.value(s.name) != "" {
		s.Errorf("the Secret was written %d times", n)
	}

	// The cause is gone, and new credentials act at once. Only the bucket of mints may be empty.
	s.wechat.ClearFaults()
	if m.lost() {
		s.clock.advance(tenMinutes)
	}
	if p.class == vocab.Limited && m.answer.reason == v1alpha1.ReasonIPBlocked {
		s.clock.advance(24 * time.Hour) // a wait that WeChat named is the account's, whatever becomes of the credentials
	}
	s.updateSecret(s.name+"-credentials", func(secret *corev1.Secret) { secret.Labels = map[string]string{"touched": "yes"} })
	s.restart(10 * time.Second)
	s.run(0)
	s.expect("in the end", conditions{"Ready": "TokenValid"}, true)
	s.announced(v1alpha1.EventRefreshFailed, v1alpha1.EventRecovered)
	if s.token(s.name).Status.LastError != nil {
		s.Error("lastError is still there")
	}
}

// restarts makes ten processes that live for a second each, and judges their calls and writes.
func (s *subject) restarts(want span) {
	s.Helper()
	before, writes := len(s.calls()), s.statusWrites()
	for range 10 {
		s.restart(s.timeout())
		s.run(time.Second)
	}
	calls := len(s.calls()) - before
	s.inSpan("calls of ten restarts", calls, want)
	if n := s.statusWrites() - writes; s.answer.pace.class == vocab.Transient && n > 0 || n > calls {
		s.Errorf("%s: ten restarts cost %d status writes", s.name, n)
	}
}

func (s *subject) inSpan(what string, n int, want span) {
	s.Helper()
	if n < want[0] || n > want[1] {
		s.Errorf("%s: %d %s, want %d to %d", s.name, n, what, want[0], want[1])
	}
}

// gaps judges the time between calls, see inDelay.
func (s *subject) gaps(calls []wechattest.Call, limit int) {
	s.Helper()
	for i := 1; i < len(calls); i++ {
		s.inDelay("the next call", calls[i].Clock.Sub(calls[i-1].Clock), i, limit)
	}
}

// paced judges the time between mints that may have happened, in the last minutes of a token.
func (s *subject) paced(calls []wechattest.Call, from time.Time) {
	s.Helper()
	for i := 1; i < len(calls); i++ {
		gap := calls[i].Clock.Sub(calls[i-1].Clock)
		if !calls[i-1].Clock.Before(from) && (gap < 20*time.Second-slack/4 || gap > 30*time.Second+slack) {
			s.Errorf("%s: %s between two mints, want 20 to 30 s", s.name, gap)
		}
	}
}

// inDelay judges the time from the nth failure to something. limit, unless 0, is the longest in seconds for those that
// are not patient.
func (s *subject) inDelay(what string, got time.Duration, nth, limit int) {
	s.Helper()
	next := s.answer.pace.next
	want := next[min(nth, len(next))-1]
	if limit > 0 && !s.answer.pace.patient {
		want = span{min(want[0], limit), min(want[1], limit)}
	}
	if got < time.Duration(want[0])*time.Second-slack/4 || got > time.Duration(want[1])*time.Second+slack {
		s.Errorf("%s: %s is %s after failure %d, want %d to %d s", s.name, what, got, nth, want[0], want[1])
	}
}

// written judges the status writes of a number of failures: one for an outage, one for each move of retryTime else. silent
// is how many failures cost none.
func (s *subject) written(when string, before, failures int, silent span) {
	s.Helper()
	want := span{failures - silent[1], failures - silent[0]}
	if s.answer.pace.class == vocab.Transient {
		want = span{1, 1}
	}
	s.inSpan("status writes "+when, s.statusWrites()-before, want)
}

// expect judges the conditions, and whether the message of Ready names what failed.
func (s *subject) expect(when string, want conditions, named bool) {
	s.Helper()
	token, got := s.token(s.name), conditions{}
	for _, c := range token.Status.Conditions {
		got[c.Type] = c.Reason
		if isTrue := c.Status == metav1.ConditionTrue; isTrue != (c.Type != "Ready" || c.Reason == "TokenValid") {
			s.Errorf("%s, %s: %s is %s", s.name, when, c.Type, c.Status)
		}
		if failed := token.Status.LastError; c.Type == "Ready" && failed != nil && strings.Contains(c.Message, failed.Message) != named {
			s.Errorf("%s, %s: Ready says %q of %q", s.name, when, c.Message, failed.Message)
		}
	}
	if !maps.Equal(got, want) {
		s.Errorf("%s, %s: conditions %v, want %v", s.name, when, got, want)
	}
}

// lastError judges what the status says of the last failure, or of the first one in an outage.
func (s *subject) lastError(calls []wechattest.Call, limit int) {
	s.Helper()
	e, code := s.token(s.name).Status.LastError, s.answer.fault.Errcode
	if strings.Contains(s.answer.fault.Body, "40164") {
		code = 40164
	}
	if e == nil || e.Reason != s.answer.reason || int(e.Code) != code || e.RetryTime == nil || (e.RequestID != "") != (code != 0) || e.Message == "" {
		s.Errorf("%s: lastError %+v", s.name, e)
		return
	}
	if s.answer.pace.class == vocab.Transient {
		return
	}
	last := calls[len(calls)-1].Clock
	if late := e.Time.Sub(last); late.Abs() > slack || int(e.Attempts) != len(calls) {
		s.Errorf("%s: lastError is of %s, %s after the last call, attempt %d of %d", s.name, e.Time, late, e.Attempts, len(calls))
	}
	s.inDelay("retryTime", e.RetryTime.Sub(e.Time.Time), len(calls), limit)
}

// announced judges the events: these and no others, and the API server has them too.
func (s *subject) announced(want ...string) {
	s.Helper()
	got := s.sent()
	if strings.Join(got, " ") != strings.Join(want, " ") {
		s.Errorf("%s: events %v, want %v", s.name, got, want)
	}
	for _, reason := range want {
		s.Eventually(func() []string { return s.events(s.name) }).Should(gomega.ContainElement(reason))
	}
}

// untouched: whatever failed, the data is what it was, and nothing was written in vain.
func (s *subject) untouched(data map[string][]byte, writes int) {
	s.Helper()
	now := s.secret(s.name).Data
	if !maps.EqualFunc(now, data, func(a, b []byte) bool { return string(a) == string(b) }) {
		s.Errorf("%s: the data of the Secret was changed", s.name)
	}
	if writes != 0 {
		s.Errorf("%s: the Secret was written %d times", s.name, writes)
	}
}
