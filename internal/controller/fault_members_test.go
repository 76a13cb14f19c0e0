// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/onsi/gomega"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// A member whose appid was wrong at first belongs to the account once it is corrected, although another resource with the same mistake
// has looked at its credentials meanwhile: it has the token of every mint, and nobody takes the other members for a foreign fetcher.
func TestMemberWhoseAppIDIsCorrected(t *testing.T) {
	const wrong = "wxfedcba9876543210" // unknown to WeChat
	w := newWorld(t)
	w.startOperator()
	w.createCredentials(appSecret)
	mistaken := func(t *v1alpha1.WeChatAppToken) { t.Spec.AppID = wrong }
	w.createToken("corrected", legacy, hourly, mistaken)
	w.eventuallyReason("corrected", v1alpha1.ReasonAppIDInvalid)
	w.createToken("as-wrong", legacy, hourly, mistaken)
	w.eventuallyReason("as-wrong", v1alpha1.ReasonAppIDInvalid)
	w.createToken("shop", legacy, hourly)
	value := w.eventuallyReady("shop")

	w.update("corrected", func(t *v1alpha1.WeChatAppToken) { t.Spec.AppID = appID })
	w.Eventually(func() string { return w.value("corrected") }).Should(gomega.Equal(value))
	w.eventuallyReady("corrected")
	const rounds = 4
	handed := 0
	for round := range rounds {
		w.pass(6*time.Minute, "shop", "corrected")
		w.ask("shop", v1alpha1.AnnotationRefreshRequestedAt, round)
		value = w.eventuallyAnother("shop", value)
		if w.holdsWithin(3*time.Second, func() bool { return w.value("corrected") == value }) {
			handed++
		}
		w.ask("corrected", v1alpha1.AnnotationCheckRequestedAt, round)
		w.Eventually(func() string { return w.handled("corrected").Check }).Should(gomega.Equal(fmt.Sprint(round)))
	}
	if handed < rounds {
		t.Errorf("the corrected member was handed the tokens of %d of %d mints", handed, rounds)
	}
	// A rotation is one mint for all, whichever of them comes first.
	mints := len(w.wechat.Tokens(appID))
	w.pass(2*time.Hour-5*time.Minute, "corrected", "shop")
	value = w.eventuallyAnother("shop", value)
	if !w.holdsWithin(3*time.Second, func() bool { return w.value("corrected") == value }) {
		t.Error("after a rotation the two members hold different tokens")
	}
	if got := len(w.wechat.Tokens(appID)) - mints; got != 1 {
		t.Errorf("a rotation was %d mints", got)
	}
	for _, name := range []string{"shop", "corrected"} {
		for _, reason := range w.events(name) {
			if reason == v1alpha1.EventForeignFetcher {
				t.Errorf("%s has the event %s, but nobody else fetches", name, reason)
			}
		}
	}
}

// A neighbour who knows the appid may have any number of resources with AppSecrets of his own. A mint does not read them: it is made in
// time when they can be read only slowly, and is made when one of them cannot be read at all. Most of them are suspended here, so that
// nothing else has a reason to read their AppSecrets, and 200 of them are no load.
func TestMintAmongManyNeighbours(t *testing.T) {
	const (
		suspended = 200
		active    = 20
		slow      = 100 * time.Millisecond
	)
	for _, failing := range []bool{false, true} {
		t.Run(fmt.Sprintf("failing=%t", failing), func(t *testing.T) {
			w := newWorld(t)
			there := w.in(w.newNamespace())
			name := func(i int) string { return fmt.Sprintf("neighbour-%03d", i) }
			for i := range suspended + active {
				there.createSecret("credentials-of-"+name(i), map[string]string{"appSecret": fmt.Sprintf("%032x", i)})
				there.createToken(name(i), legacy, hourly, func(t *v1alpha1.WeChatAppToken) {
					t.Spec.CredentialsSecretRef.Name = "credentials-of-" + name(i)
					t.Spec.Suspend = i < suspended
				})
			}
			unreadable := []string{name(suspended / 2), name(suspended + active/2)}
			credentials := "/namespaces/" + there.namespace + "/secrets/credentials-of-"
			o := w.startOperatorThrough(func(next http.RoundTripper) http.RoundTripper {
				return roundTripper(func(r *http.Request) (*http.Response, error) {
					_, of, found := strings.Cut(r.URL.Path, credentials)
					switch {
					case !found || r.Method != http.MethodGet:
					case failing && slices.Contains(unreadable, of):
						return &http.Response{
							StatusCode: http.StatusInternalServerError, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
							Header: http.Header{"Content-Type": {"text/plain"}}, Body: io.NopCloser(strings.NewReader("the test refuses it")), Request: r,
						}, nil
					case !failing:
						time.Sleep(slow)
					}
					return next.RoundTrip(r)
				})
			}, there.namespace)
			w.createCredentials(appSecret)
			w.createToken("shop", legacy, hourly)
			if !w.holdsWithin(10*time.Second, func() bool { return w.ownToken("shop", appID) }) {
				t.Error("the shop has no token after 10 s")
			}
			// Each neighbour learns by his own pass what is wrong with his AppSecret.
			for i := suspended; i < suspended+active; i++ {
				if !failing || name(i) != unreadable[1] {
					there.eventuallyReason(name(i), v1alpha1.ReasonAppSecretInvalid)
				}
			}
			reads := func() map[string]int {
				all, err := env.Requests(func(r testenv.Request) bool {
					return r.UserAgent == o.name && r.Verb == "get" && r.Object.Resource == "secrets" && r.Object.Namespace == there.namespace &&
						strings.HasPrefix(r.Object.Name, "credentials-of-")
				})
				w.must(err)
				counts := map[string]int{}
				for _, r := range all {
					counts[strings.TrimPrefix(r.Object.Name, "credentials-of-")]++
				}
				return counts
			}
			before, forNothing := reads(), 0
			for i := range suspended {
				forNothing += before[name(i)]
			}
			for i := suspended; i < suspended+active; i++ {
				forNothing += max(0, before[name(i)]-1)
			}
			if forNothing > 0 {
				t.Errorf("the credentials of neighbours were read %d times for nothing", forNothing)
			}
			value := w.eventuallyReady("shop")
			w.pass(2*time.Hour-5*time.Minute, "shop")
			w.eventuallyAnother("shop", value)
			if more := minus(reads(), before); len(more) > 0 {
				t.Errorf("the next mint read the credentials of %d neighbours", len(more))
			}
			if n := len(w.wechat.Tokens(appID)); n != 2 {
				t.Errorf("%d tokens were minted, want 2", n)
			}
		})
	}
}

// A member that joins after a mint, and before the status of the one that minted tells of it, waits for that token instead of asking for
// another mint. Two mints in a row would end the token before them, which pods may hold.
func TestMemberThatJoinsAfterAMint(t *testing.T) {
	w := newWorld(t)
	w.startOperatorThrough(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodPatch && strings.HasSuffix(r.URL.Path, "/first/status") {
				time.Sleep(2 * time.Second)
			}
			return next.RoundTrip(r)
		})
	})
	w.createCredentials(appSecret)
	w.createToken("first", legacy, hourly)
	w.Eventually(func() int { return w.calls(wechattest.EndpointLegacy) }).Should(gomega.Equal(1))
	for i := range 4 {
		w.createToken(fmt.Sprint("later-", i), legacy, hourly)
	}
	value := w.eventuallyReady("first")
	for i := range 4 {
		if other := w.eventuallyReady(fmt.Sprint("later-", i)); other != value {
			t.Errorf("later-%d holds another token", i)
		}
	}
	if n := w.calls(wechattest.EndpointLegacy); n != 1 {
		t.Errorf("%d mints for one account", n)
	}
}
