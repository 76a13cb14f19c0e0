// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	vocab "github.com/wechat-token-operator/wechat-token-operator/internal/token"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// span is a closed range of counts, or of seconds.
type span [2]int

// pace is what the design promises of a failure. Seconds and calls were worked out from it by hand.
type pace struct {
	class vocab.Class
	// next is the delay in seconds after the first failure, the second and so on; the last one goes on.
	next []span
	// patient: WeChat asked for it, so the handover window changes nothing. Else no delay in it is longer than 10 s.
	patient bool
	// calls within ten minutes outside the handover window, from the first that fails.
	calls span
	// handover has the calls of the 285 to 299 s from Stable's first due call to the expiry, ten restarts among them, and
	// those of the 600 to 660 s of Legacy's.
	handover, legacyHandover span
	// restarts has the calls of ten processes that live for 1 s each outside the handover window, without a token that
	// is valid, and within the window.
	restarts, restartsWithout, restartsInside span
	// silent failures come before the first that the status speaks of, while a valid token is not due.
	silent int
}

// pace of the classes of section 4 of the design.
var (
	// 1 s, 2 s, 4 s and so on with full jitter, at most 60 s. A restart begins anew; the first check after it comes within
	// 45 s, hardly ever within the first second, but then each time. It is reported once: when it has lasted for 60 s, or at once in the window.
	transient = pace{
		class: vocab.Transient, next: []span{{0, 1}, {0, 2}, {0, 4}, {0, 8}, {0, 16}, {0, 32}, {0, 60}}, calls: span{12, 60},
		handover: span{35, 110}, legacyHandover: span{65, 200},
		restarts: span{0, 12}, restartsWithout: span{10, 40}, restartsInside: span{10, 40},
	}
	// 60 to 90 s.
	rateLimited = pace{
		class: vocab.Limited, next: []span{{60, 90}}, patient: true, calls: span{7, 11},
		handover: span{4, 5}, legacyHandover: span{7, 12},
		restarts: span{0, 1}, restartsWithout: span{0, 1}, restartsInside: span{0, 1},
	}
	// 30 min, 1 h or 24 h.
	dailyQuota = pace{
		class: vocab.Limited, next: []span{{1800, 1800}}, patient: true, calls: span{1, 1}, handover: span{1, 1}, legacyHandover: span{1, 1},
	}
	blockedHour = pace{
		class: vocab.Limited, next: []span{{3600, 3600}}, patient: true, calls: span{1, 1}, handover: span{1, 1}, legacyHandover: span{1, 1},
	}
	blockedDay = pace{
		class: vocab.Limited, next: []span{{86400, 86400}}, patient: true, calls: span{1, 1}, handover: span{1, 1}, legacyHandover: span{1, 1},
	}
	// 5 s, 15 s, then 2 min rising to 10 min: calls at 0, 5, 20, 140 and 380 s.
	allowlist = pace{
		class: vocab.Action, next: []span{{5, 5}, {15, 15}, {120, 120}, {240, 240}, {480, 480}, {600, 600}}, calls: span{5, 5},
		handover: span{24, 32}, legacyHandover: span{54, 76}, restartsInside: span{0, 10},
	}
	// 5 s, 15 s, then 10 min rising to 1 h: calls at 0, 5 and 20 s.
	action = pace{
		class: vocab.Action, next: []span{{5, 5}, {15, 15}, {600, 600}, {1200, 1200}, {2400, 2400}, {3600, 3600}}, calls: span{3, 3},
		handover: span{24, 32}, legacyHandover: span{54, 76}, restartsInside: span{0, 10},
	}
	// Transient the first two times, then Action: calls at 0, within 1 s, within 3 s, and 5 s and 20 s after that.
	unknown = pace{
		class: vocab.Action, next: []span{{0, 1}, {0, 2}, {5, 5}, {15, 15}, {600, 600}}, calls: span{5, 5}, silent: 2,
		handover: span{25, 34}, legacyHandover: span{55, 78}, restartsInside: span{0, 10},
	}
)

// answer is a row of the matrix: an answer of WeChat without a token, or the lack of one.
type answer struct {
	name   string
	fault  wechattest.Fault
	reason string
	pace   pace
	// lost: a mint may have happened, so in Legacy mode the bucket of mints holds the next one back.
	lost bool
}

func answers() []answer {
	var out []answer
	codes := func(reason string, p pace, codes ...int) {
		for _, code := range codes {
			out = append(out, answer{fmt.Sprint("errcode ", code), wechattest.Fault{Errcode: code}, reason, p, false})
		}
	}
	codes(v1alpha1.ReasonSystemBusy, transient, -1)
	codes(v1alpha1.ReasonRateLimited, rateLimited, 45011)
	codes(v1alpha1.ReasonDailyQuotaExhausted, dailyQuota, 45009)
	codes(v1alpha1.ReasonIPBlocked, blockedHour, 89507)
	codes(v1alpha1.ReasonIPBlocked, blockedDay, 89506)
	codes(v1alpha1.ReasonAppSecretInvalid, action, 40001, 40125)
	codes(v1alpha1.ReasonAppIDInvalid, action, 40013)
	codes(v1alpha1.ReasonIPNotAllowed, allowlist, 40164, 61004, 45035)
	codes(v1alpha1.ReasonAdminConfirmationRequired, allowlist, 89501, 89502, 89503, 89504, 89505)
	codes(v1alpha1.ReasonAppSecretFrozen, action, 40243)
	codes(v1alpha1.ReasonAccountRestricted, action, 50002, 50004, 50007, 48004)
	codes(v1alpha1.ReasonUnsupportedAccount, action, 61024)
	codes(v1alpha1.ReasonRequestRejected, unknown, 47999, -7, 2147483647)
	// The operator sends what these ask for, so something on the way changed the request.
	codes(v1alpha1.ReasonRequestRejected, unknown, 40002, 41001, 41002, 41004, 43001, 43002, 44002, 47001)
	// A malformed answer that shows an errcode is a refusal all the same.
	for name, text := range map[string]string{
		"errcode in quotes":       `{"errcode":"40164","errmsg":"invalid ip rid: 1-2-3"}`,
		"errcode twice":           `{"errcode":0,"errcode":40164,"errmsg":"rid: 1-2-3"}`,
		"errcode in a broken one": "\ufeff{\"errcode\":40164,\"errmsg\":\"invalid\x1bip rid: 1-2-3",
	} {
		out = append(out, answer{name, wechattest.Fault{Body: text}, v1alpha1.ReasonIPNotAllowed, allowlist, false})
	}

	broken := func(name, reason string, fault wechattest.Fault) {
		out = append(out, answer{name, fault, reason, transient, true})
	}
	body := func(name, text string) { broken(name, v1alpha1.ReasonBadResponse, wechattest.Fault{Body: text}) }
	broken("HTML", v1alpha1.ReasonBadResponse, wechattest.Fault{Body: "<html>maintenance</html>", ContentType: "text/html"})
	broken("garbage", v1alpha1.ReasonBadResponse, wechattest.Fault{Garbage: true})
	broken("nothing", v1alpha1.ReasonBadResponse, wechattest.Fault{ContentType: "text/plain"})
	body("cut JSON", `{"access_token":"abc","expires`)
	body("empty token", `{"access_token":"","expires_in":7200}`)
	body("no token", `{"expires_in":7200}`)
	body("expires_in of 0", `{"access_token":"abc","expires_in":0}`)
	body("expires_in of -1", `{"access_token":"abc","expires_in":-1}`)
	body("expires_in in quotes", `{"access_token":"abc","expires_in":"7200"}`)
	body("errcode 0 without a token", `{"errcode":0,"errmsg":"ok"}`)
	body("errcode above 32 bits", `{"errcode":4294967296}`)
	body("errcode 0 in quotes", `{"errcode":"0","access_token":"abc","expires_in":7200}`)
	body("two tokens", `{"access_token":"abc","access_token":"def","expires_in":7200}`)
	body("a list", `[{"access_token":"abc","expires_in":7200}]`)
	body("a token with a line break", `{"access_token":"abc\ndef","expires_in":7200}`)
	body("more than 64 KiB", `{"access_token":"abc","expires_in":7200,"more":"`+strings.Repeat("x", 64<<10)+`"}`)
	for status, reason := range map[int]string{
		204: v1alpha1.ReasonBadResponse, 301: v1alpha1.ReasonBadResponse, 400: v1alpha1.ReasonBadResponse, 403: v1alpha1.ReasonBadResponse,
		404: v1alpha1.ReasonBadResponse, 500: v1alpha1.ReasonUnreachable, 502: v1alpha1.ReasonUnreachable, 503: v1alpha1.ReasonUnreachable,
		504: v1alpha1.ReasonUnreachable,
	} {
		broken(fmt.Sprint("HTTP ", status), reason, wechattest.Fault{Status: status})
	}
	broken("hang", v1alpha1.ReasonUnreachable, wechattest.Fault{Hang: true})
	for _, cut := range []wechattest.Cut{wechattest.CutBefore, wechattest.CutAfter, wechattest.CutBody} {
		broken("cut "+string(cut), v1alpha1.ReasonUnreachable, wechattest.Fault{Cut: cut})
	}
	// Who answers HTTP 429 did nothing, and wants the patience that 45011 wants.
	return append(out, answer{"HTTP 429", wechattest.Fault{Status: 429}, v1alpha1.ReasonRateLimited, rateLimited, false})
}

// TestErrorMatrix puts every answer of WeChat that brings no token before a resource with a valid token, one whose token
// is due until it expires, and one without a token, in both modes.
func TestErrorMatrix(t *testing.T) {
	c := newClerk(t)
	t.Run("answers", func(t *testing.T) {
		for _, a := range answers() {
			for _, mode := range []v1alpha1.Mode{v1alpha1.ModeStable, v1alpha1.ModeLegacy} {
				if mode == v1alpha1.ModeLegacy && a.fault.Hang {
					continue // a mint that hangs takes 10 s, and is to the operator what a cut after it is
				}
				t.Run(strings.ReplaceAll(fmt.Sprint(a.name, "/", mode), " ", "_"), func(t *testing.T) {
					m := newMatrix(t, c, mode)
					m.answer = a
					if mode == v1alpha1.ModeStable {
						m.whileValid()
					} else {
						m.whileProbed()
					}
					m.whileDue()
					m.withoutToken()
				})
			}
		}
	})
}

// TestErrorMatrixIsComplete: a code that is added to the table must be added to the matrix, unless only a probe or a call for a ticket is
// answered with it.
func TestErrorMatrixIsComplete(t *testing.T) {
	source, err := os.ReadFile("../wechat/codes.go")
	if err != nil {
		t.Fatal(err)
	}
	var codes []int
	for _, a := range answers() {
		codes = append(codes, a.fault.Errcode)
	}
	rows := regexp.MustCompile(`\{code: (-?\d+), class`).FindAllSubmatch(source, -1)
	for _, row := range rows {
		code, err := strconv.Atoi(string(row[1]))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(codes, code) && !slices.Contains([]int{40014, 42001, 40097, 48001, 61007}, code) {
			t.Errorf("errcode %d is missing", code)
		}
	}
	if len(rows) < 20 {
		t.Errorf("%d rows were found in the table", len(rows))
	}
}

// Answers with an odd token or life are good ones.
func TestOddButGoodAnswers(t *testing.T) {
	c := newClerk(t)
	long := strings.Repeat("0123456789", 200)
	for name, tc := range map[string]struct {
		token, life string
		want        time.Duration
	}{
		"2,000 characters":         {long, "7200", 2 * time.Hour},
		"expires_in of a year":     {"a-token-of-a-year", "31536000", 4 * time.Hour},
		"expires_in above 64 bits": {"a-token-for-ever", "99999999999999999999999", 4 * time.Hour},
	} {
		for _, mode := range []v1alpha1.Mode{v1alpha1.ModeStable, v1alpha1.ModeLegacy} {
			t.Run(strings.ReplaceAll(fmt.Sprint(name, "/", mode), " ", "_"), func(t *testing.T) {
				m := newMatrix(t, c, mode)
				m.wechat.Inject(wechattest.Fault{Body: `{"access_token":"` + tc.token + `","expires_in":` + tc.life + `}`})
				s := m.subject("shop", time.Hour)
				s.run(time.Minute)
				secret := s.secret("shop")
				if string(secret.Data["access_token"]) != tc.token {
					t.Errorf("the Secret holds %q", secret.Data["access_token"])
				}
				left := s.token("shop").Status.Token.ExpirationTime.Sub(s.clock.now())
				if left < tc.want-2*time.Minute || left > tc.want {
					t.Errorf("the token is said to live for another %s", left)
				}
				s.expect("", conditions{"Ready": "TokenValid"}, true)
				if n := len(s.calls()); n != 1 {
					t.Errorf("%d calls within a minute", n)
				}
				s.logs.mustNotHold(t, tc.token)
			})
		}
	}
}

// A minted token that the API server does not take is kept and written as soon as it does. Another mint would end the token that is
// in use.
func TestMintedTokenIsKeptUntilItIsWritten(t *testing.T) {
	c := newClerk(t)
	m := newMatrix(t, c, v1alpha1.ModeLegacy)
	s := m.subject("kept", time.Hour)
	s.issued()
	// What is published is cut to whole seconds, twice.
	s.clock.advance(s.token(s.name).Status.NextRefreshTime.Add(3 * time.Second).Sub(s.clock.now()))
	refused := 0
	c.beforeData = func() error {
		if refused == 4 {
			return nil
		}
		refused++
		return apierrors.NewInternalError(errors.New("the test refuses it"))
	}
	written := func() bool {
		tokens := s.wechat.Tokens(s.app)
		return len(tokens) > 1 && s.value(s.name) == tokens[1].Token
	}
	if !s.runUntil(time.Minute, written) {
		t.Fatal("the token was never written")
	}
	if n := len(s.wechat.Tokens(s.app)); refused != 4 || n != 2 {
		t.Errorf("%d writes were refused and %d tokens were minted, want 4 and 2", refused, n)
	}
}

// A leader is stopped between WeChat's answer and its write of the Secret, and goes on when another one has written a newer
// token. Neither that write nor a later one may put the older token back.
func TestStoppedLeaderWritesTooLate(t *testing.T) {
	for _, mode := range []v1alpha1.Mode{v1alpha1.ModeStable, v1alpha1.ModeLegacy} {
		t.Run(string(mode), func(t *testing.T) {
			m := newMatrix(t, newClerk(t), mode)
			s := m.subject("late", time.Hour)
			s.issued()
			newest := func() bool {
				tokens := s.wechat.Tokens(s.app)
				return len(tokens) == 3 && s.value(s.name) == tokens[2].Token
			}
			stops := 0
			m.clerk.beforeData = func() error {
				m.clerk.beforeData = nil
				stops++
				// The second token waits for its write. In Stable mode the other leader is given it too, and then the third.
				other := *s
				other.restart(10 * time.Second)
				if !other.runUntil(3*time.Hour, newest) {
					t.Error("the other leader has not written a third token")
				}
				m.clerk.beforeData = func() error { // a wrong write may be repaired by the next one in the same pass
					if !newest() {
						t.Error("an older token was put back")
					}
					return nil
				}
				return nil
			}
			s.run(s.token(s.name).Status.NextRefreshTime.Add(time.Minute).Sub(s.clock.now()))
			if stops != 1 || !newest() {
				t.Fatalf("after %d stops the newest token is not in the Secret", stops)
			}
			if s.runUntil(5*time.Minute, func() bool { return !newest() }) {
				t.Error("the newest token is not in the Secret any more")
			}
			s.expect("in the end", conditions{"Ready": "TokenValid"}, false)
		})
	}
}
