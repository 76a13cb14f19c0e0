// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// suspended suspends a resource, or ends that, and waits until the operator has seen it.
func (w *world) suspended(name string, is bool) {
	w.Helper()
	w.update(name, func(t *v1alpha1.WeChatAppToken) { t.Spec.Suspend = is })
	w.Eventually(func() bool {
		t := w.token(name)
		return t.Status.ObservedGeneration == t.Generation
	}).Should(gomega.BeTrue())
}

// refreshed has the account of a resource mint a token, six minutes after the last mint.
func (w *world) refreshed(name, value string) string {
	w.Helper()
	before := w.value(name)
	w.pass(6*time.Minute, name)
	w.ask(name, v1alpha1.AnnotationRefreshRequestedAt, value)
	return w.eventuallyAnother(name, before)
}

// foreignFetches is how many foreign fetches the metrics were told of.
func (w *world) foreignFetches() (n int) {
	counts, _, _ := w.recorder.take()
	for what, count := range counts {
		if strings.HasPrefix(what, "foreign ") {
			n += count
		}
	}
	return n
}

// Two members hold old tokens of the account, a different one each, because they were suspended when the operator replaced them. Nobody
// else ever fetched, so that these tokens are dead is no foreign fetcher's doing.
func TestTwoSupersededTokens(t *testing.T) {
	w := newWorld(t)
	o := w.startOperator()
	names := []string{"keeper", "first", "second"}
	w.legacyMembers(names...)
	w.suspended("first", true)
	value := w.refreshed("keeper", "1")
	w.Eventually(func() string { return w.value("second") }).Should(gomega.Equal(value))
	w.suspended("second", true)
	o.stop() // a token that waits for a suspended member is lost

	o = w.startOperator()
	w.refreshed("keeper", "2")
	value = w.refreshed("keeper", "3")
	w.eventuallyReady("keeper")
	o.stop()

	w.startOperator()
	w.ask("keeper", v1alpha1.AnnotationCheckRequestedAt, "started")
	w.Eventually(func() string { return w.handled("keeper").Check }).Should(gomega.Equal("started"))
	w.jump(time.Minute)
	held := map[string]bool{value: true}
	for _, name := range []string{"first", "second"} {
		if v := w.value(name); w.wechat.Valid(v) || held[v] {
			t.Fatalf("%s does not hold an old token of its own that is dead", name)
		}
		held[w.value(name)] = true
	}
	for _, name := range []string{"first", "second"} {
		w.suspended(name, false)
		w.Eventually(func() string { return w.value(name) }).Should(gomega.Equal(value))
		w.jump(11 * time.Second) // so that no pace holds the next check back
	}
	w.Consistently(func() []string { return append(w.events("first"), w.events("second")...) }).
		ShouldNot(gomega.ContainElement(v1alpha1.EventForeignFetcher), "nobody else fetches for this appid")
	if n := w.foreignFetches(); n != 0 {
		t.Errorf("the metrics were told of %d foreign fetches, but there were none", n)
	}
	if n := len(w.wechat.Tokens(appID)); n != 4 {
		t.Errorf("%d tokens were minted, want 4", n)
	}
}

// Of two dead tokens, which two other members of the account hold, neither becomes alive again because the other one is found to be dead:
// while no new token is to be had, the member says that it has none, and each death counts once.
func TestTwoDeadTokens(t *testing.T) {
	w := newWorld(t)
	o := w.startOperator()
	w.legacyMembers("older", "shop", "newer")
	w.suspended("older", true)
	value := w.refreshed("shop", "1")
	w.Eventually(func() string { return w.value("newer") }).Should(gomega.Equal(value))
	w.eventuallyReady("newer")
	o.stop() // a token that waits for a suspended member is lost

	w.startOperator()
	check := func(value string) {
		w.ask("shop", v1alpha1.AnnotationCheckRequestedAt, value)
		w.holdsWithin(3*time.Second, func() bool { return w.handled("shop").Check == value })
	}
	check("alive")
	w.suspended("older", false)
	w.wechat.Inject(wechattest.Fault{Endpoint: wechattest.EndpointLegacy, Errcode: 40164})
	w.wechat.RivalMint(appID)
	w.wechat.RivalMint(appID)
	dead := map[string]bool{w.value("older"): true, w.value("newer"): true}
	if len(dead) != 2 {
		return // the older member has followed before there was a need to
	}
	w.foreignFetches()
	for i := range 3 { // at the latest now it is known of both
		w.pass(11*time.Second, "shop")
		check(fmt.Sprint("dead-", i))
	}
	revived, told := 0, w.foreignFetches()
	for i := range 4 {
		before := w.value("shop")
		w.pass(11*time.Second, "shop")
		check(fmt.Sprint("still-dead-", i))
		if ready := w.condition("shop", v1alpha1.ConditionReady); w.value("shop") != before || ready.Status == metav1.ConditionTrue {
			revived++
		}
		told += w.foreignFetches()
	}
	if revived > 0 {
		t.Errorf("after %d of 4 checks a dead token was taken as alive", revived)
	}
	if told > 2 {
		t.Errorf("the deaths of 2 tokens were counted %d times", told)
	}
}
