// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/onsi/gomega"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

const (
	// refreshAfter is how long after the account's last mint a Legacy refresh is carried out: by then no volume holds a token that it kills.
	refreshAfter = 5*time.Minute + 30*time.Second
	// requestedPerDay is how many forced calls or requested mints an account makes in 24 hours.
	requestedPerDay = 20
)

// mintGaps are the times between the tokens of the appid.
func (w *world) mintGaps() (gaps []time.Duration) {
	tokens := w.wechat.Tokens(appID)
	for i := range tokens[1:] {
		gaps = append(gaps, tokens[i+1].IssuedAt.Sub(tokens[i].IssuedAt))
	}
	return gaps
}

// A refresh that is asked for each second, also across a restart, mints a Legacy token when the account's last mint is five and a half
// minutes ago, and not before.
func TestLegacyRefreshIsPaced(t *testing.T) {
	w := newWorld(t)
	o := w.startOperator()
	w.createCredentials(appSecret)
	w.createToken("shop", legacy, hourly)
	w.eventuallyReady("shop")
	const longStep = 10 * time.Second
	asked := 0
	ask := func(step time.Duration) {
		asked++
		w.ask("shop", v1alpha1.AnnotationRefreshRequestedAt, asked)
		time.Sleep(20 * time.Millisecond)
		w.pass(step, "shop")
	}
	for range 60 {
		ask(time.Second)
	}
	w.holdsWithin(time.Second, func() bool { return len(w.wechat.Tokens(appID)) > 1 })
	if n := len(w.wechat.Tokens(appID)); n != 1 {
		t.Errorf("%d mints in the minute after the first", n-1)
	}
	o.stop()
	w.startOperator()
	w.eventuallyReady("shop")
	for range 100 {
		ask(longStep)
	}
	for _, gap := range w.mintGaps() {
		// The pace counts from the start of a call, and the clock may be moved before WeChat issues the token.
		if gap < refreshAfter-longStep-time.Second {
			t.Errorf("a mint %s after the one before", gap.Round(time.Second))
			break
		}
	}
	w.pass(refreshAfter, "shop")
	w.Eventually(func() string { return w.handled("shop").Refresh }).Should(gomega.Equal(fmt.Sprint(asked)))
	if n := len(w.wechat.Tokens(appID)); n < 4 {
		t.Errorf("%d tokens in 23 minutes: the requests were not carried out", n)
	}
}

// An account grants 20 requested mints in 24 hours, whichever members are asked and however often the operator restarts. The rotations
// go on.
func TestLegacyRefreshBudget(t *testing.T) {
	const (
		step  = 6 * time.Minute
		steps = 70 // in 7 hours
	)
	w := newWorld(t)
	o := w.startOperator()
	names := []string{"first", "second"}
	w.legacyMembers(names...)
	mints := func() int { return len(w.wechat.Tokens(appID)) - 1 }
	for i := range steps {
		name, value, before := names[i%2], fmt.Sprint(i), mints()
		w.pass(step, names...)
		w.ask(name, v1alpha1.AnnotationRefreshRequestedAt, value)
		wait := 2 * time.Second
		if before >= requestedPerDay {
			wait = 100 * time.Millisecond
		}
		w.holdsWithin(wait, func() bool { return w.handled(name).Refresh == value })
		if i%16 == 15 {
			o.stop()
			o = w.startOperator()
		}
	}
	w.pass(0, names...)
	w.eventuallyReady("first")
	w.eventuallyReady("second")
	// A rotation comes 109 minutes after the last mint or later.
	most := requestedPerDay + int(steps*step/(109*time.Minute)) + 1
	if n := mints(); n > most || n < requestedPerDay {
		t.Errorf("%d mints in %s, want %d requested ones and at most %d rotations", n, steps*step, requestedPerDay, most-requestedPerDay)
	}
	// A revoke has to wait as well.
	before := mints()
	w.ask("first", v1alpha1.AnnotationRevokeRequestedAt, "1")
	if w.holdsWithin(time.Second, func() bool { return mints() > before }) {
		t.Error("a revoke was begun although the budget is used up")
	}
}

// WeChat grants an account 20 forced calls in 24 hours: no more are made, whichever members are asked and however often the operator
// restarts.
func TestStableRefreshBudget(t *testing.T) {
	const steps = 32
	w := newWorld(t)
	o := w.startOperator()
	w.createCredentials(appSecret)
	names := []string{"first", "second"}
	for _, name := range names {
		w.createToken(name, hourly)
		w.eventuallyReady(name)
	}
	for i := range steps {
		name, value, before := names[i%2], fmt.Sprint(i), w.forcedCalls()
		w.pass(40*time.Second, names...)
		w.ask(name, v1alpha1.AnnotationRefreshRequestedAt, value)
		wait := 2 * time.Second
		if before >= requestedPerDay {
			wait = 300 * time.Millisecond
		}
		w.holdsWithin(wait, func() bool { return w.handled(name).Refresh == value && w.value("first") == w.value("second") })
		if i%6 == 5 {
			o.stop()
			o = w.startOperator()
		}
	}
	// A member that has not followed the other one yet needs no forced call.
	if n := w.forcedCalls(); n > requestedPerDay || n < requestedPerDay/2 {
		t.Errorf("%d forced calls in %s, want at most %d and not far less", n, steps*40*time.Second, requestedPerDay)
	}
}

// Two forced calls of an account are 31 s apart, also when another member is asked for the second one and the operator restarts between
// them.
func TestForcedCallsAreApart(t *testing.T) {
	w := newWorld(t)
	o := w.startOperator()
	w.createCredentials(appSecret)
	w.createToken("first", hourly)
	before := w.eventuallyReady("first")
	w.createToken("second", hourly)
	w.eventuallyReady("second")
	w.ask("first", v1alpha1.AnnotationRefreshRequestedAt, "1")
	value := w.eventuallyAnother("first", before)
	w.Eventually(func() string { return w.handled("first").Refresh }).Should(gomega.Equal("1"))
	w.pass(11*time.Second, "second")
	w.Eventually(func() string { return w.value("second") }).Should(gomega.Equal(value))
	w.eventuallyReady("second")
	o.stop()
	w.startOperator()
	w.ask("second", v1alpha1.AnnotationRefreshRequestedAt, "1")
	if w.holdsWithin(2*time.Second, func() bool { return w.forcedCalls() > 1 }) {
		t.Error("a second forced call within 31 s")
	}
	w.pass(32*time.Second, "first", "second")
	w.Eventually(w.forcedCalls).Should(gomega.Equal(2))
	w.eventuallyAnother("second", value)
}

// An account is checked on request once in 10 s, and one answer handles the requests of all members.
func TestCheckRequestsArePaced(t *testing.T) {
	eachMode(t, func(t *testing.T, in func(*v1alpha1.WeChatAppToken)) {
		w := newWorld(t)
		w.startOperator()
		w.createCredentials(appSecret)
		names := []string{"first", "second"}
		for _, name := range names {
			w.createToken(name, hourly, in)
			w.eventuallyReady(name)
		}
		w.pass(time.Minute, names...)
		calls := w.wechat.Count(wechattest.Filter{})
		const each = 10
		for i := range each {
			for _, name := range names {
				w.ask(name, v1alpha1.AnnotationCheckRequestedAt, i)
				time.Sleep(100 * time.Millisecond)
			}
		}
		w.pass(11*time.Second, names...)
		for _, name := range names {
			w.Eventually(func() string { return w.handled(name).Check }).Should(gomega.Equal(fmt.Sprint(each - 1)))
		}
		if n := w.wechat.Count(wechattest.Filter{}) - calls; n < 1 || n > 2 {
			t.Errorf("%d calls for %d requests within 3 s, want 1 or 2", n, each*len(names))
		}
	})
}

// A rotation that comes while a Legacy refresh waits for the account's pace is the refresh.
func TestRotationHandlesALegacyRefresh(t *testing.T) {
	w := newWorld(t, func(o *wechattest.Options) { o.Life = 8 * time.Minute }) // replaced at half of it
	w.startOperator()
	w.createCredentials(appSecret)
	w.createToken("shop", legacy, hourly)
	value := w.eventuallyReady("shop")
	w.pass(time.Minute, "shop")
	w.ask("shop", v1alpha1.AnnotationRefreshRequestedAt, "1")
	if w.holdsWithin(2*time.Second, func() bool { return len(w.wechat.Tokens(appID)) > 1 || w.handled("shop").Refresh == "1" }) {
		t.Errorf("a minute after the last mint the refresh was carried out, or is called handled: %d tokens", len(w.wechat.Tokens(appID)))
	}
	w.pass(3*time.Minute+5*time.Second, "shop")
	w.eventuallyAnother("shop", value)
	w.Eventually(func() string { return w.handled("shop").Refresh }).Should(gomega.Equal("1"))
	w.pass(3*time.Minute, "shop")
	w.Consistently(func() int { return len(w.wechat.Tokens(appID)) }).Should(gomega.Equal(2))
}

// One mint handles the refreshes that several members of a Legacy account were asked for before it.
func TestOneMintHandlesAllLegacyRefreshes(t *testing.T) {
	w := newWorld(t)
	w.startOperator()
	names := []string{"first", "second", "third"}
	w.legacyMembers(names...)
	w.pass(time.Minute, names...)
	for _, name := range names {
		w.ask(name, v1alpha1.AnnotationRefreshRequestedAt, "1")
	}
	w.holdsWithin(2*time.Second, func() bool { return len(w.wechat.Tokens(appID)) > 3 })
	w.pass(refreshAfter, names...)
	for _, name := range names {
		w.Eventually(func() string { return w.handled(name).Refresh }).Should(gomega.Equal("1"))
	}
	w.pass(refreshAfter, names...)
	w.Consistently(func() int { return len(w.wechat.Tokens(appID)) }).Should(gomega.Equal(2))
}
