// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
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
// time when they can be read only slowly, and is made when one of them cannot be read at all.
func TestMintAmongManyNeighbours(t *testing.T) {
	const (
		neighbours = 200
		slow       = 100 * time.Millisecond
	)
	for _, failing := range []bool{false, true} {
		t.Run(fmt.Sprintf("failing=%t", failing), func(t *testing.T) {
			w := newWorld(t)
			there := w.in(w.newNamespace())
			name := func(i int) string { return fmt.Sprintf("neighbour-%03d", i) }
			for i := range neighbours {
				there.createSecret("credentials-of-"+name(i), map[string]string{"appSecret": fmt.Sprintf("%032x", i)})
				there.createToken(name(i), legacy, hourly, func(t *v1alpha1.WeChatAppToken) {
					t.Spec.CredentialsSecretRef.Name = "credentials-of-" + name(i)
				})
			}
			w.createCredentials(appSecret)
			w.createToken("shop", legacy, hourly)

			const unreadable = neighbours / 2
			credentials := "/namespaces/" + there.namespace + "/secrets/credentials-of-"
			o := w.startOperatorThrough(func(next http.RoundTripper) http.RoundTripper {
				return roundTripper(func(r *http.Request) (*http.Response, error) {
					if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, credentials) {
						return next.RoundTrip(r)
					}
					if failing && strings.HasSuffix(r.URL.Path, name(unreadable)) {
						return &http.Response{
							StatusCode: http.StatusInternalServerError, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
							Header: http.Header{"Content-Type": {"text/plain"}}, Body: io.NopCloser(strings.NewReader("the test refuses it")), Request: r,
						}, nil
					}
					if !failing {
						time.Sleep(slow)
					}
					return next.RoundTrip(r)
				})
			}, there.namespace)
			start := time.Now()
			ready := func() bool { return w.condition("shop", v1alpha1.ConditionReady).Status == "True" }
			if !w.holdsWithin(15*time.Second, ready) {
				t.Fatalf("the shop has no token after %s", time.Since(start).Round(time.Second))
			}
			value := w.eventuallyReady("shop")

			// Each neighbour learns by his own pass what is wrong with his AppSecret.
			w.Eventually(func() []string {
				list := &v1alpha1.WeChatAppTokenList{}
				w.must(w.List(w.Context(), list, client.InNamespace(there.namespace)))
				var waiting []string
				for i := range list.Items {
					item := &list.Items[i]
					cannotLearn := failing && item.Name == name(unreadable)
					told := item.Status.LastError != nil && item.Status.LastError.Reason == v1alpha1.ReasonAppSecretInvalid
					if !told && !cannotLearn {
						waiting = append(waiting, item.Name)
					}
				}
				return waiting
			}, time.Minute).Should(gomega.BeEmpty())
			reads := func() int {
				all, err := env.Requests(func(r testenv.Request) bool {
					return r.UserAgent == o.name && r.Verb == "get" && r.Object.Resource == "secrets" && r.Object.Namespace == there.namespace &&
						strings.HasPrefix(r.Object.Name, "credentials-of-")
				})
				w.must(err)
				return len(all)
			}
			before := reads()
			if before > neighbours+10 {
				t.Errorf("the credentials of %d neighbours were read %d times", neighbours, before)
			}
			w.pass(2*time.Hour-5*time.Minute, "shop")
			w.eventuallyAnother("shop", value)
			if n := reads() - before; n > 0 {
				t.Errorf("the next mint read credentials of neighbours %d times", n)
			}
			if n := len(w.wechat.Tokens(appID)); n != 2 {
				t.Errorf("%d tokens were minted, want 2", n)
			}
		})
	}
}
