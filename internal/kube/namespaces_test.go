// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
)

// answers is a transport that always answers with a code.
type answers int

func (a answers) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: int(a), Body: io.NopCloser(strings.NewReader("the answer"))}, nil
}

func lists() Lists {
	return Lists{
		"secrets":         {Kind: "PartialObjectMetadataList", APIVersion: "meta.k8s.io/v1"},
		"wechatapptokens": {Kind: "WeChatAppTokenList", APIVersion: "wechat.apptoken.dev/v1alpha1"},
	}
}

func TestListsThatCountAsEmpty(t *testing.T) {
	const secrets, tokens = "/api/v1/namespaces/shop/secrets", "/apis/wechat.apptoken.dev/v1alpha1/namespaces/shop/wechatapptokens"
	for name, test := range map[string]struct {
		method, url string
		code        int
		empty       bool
	}{
		"a list of Secrets that is forbidden": {http.MethodGet, secrets + "?limit=500", http.StatusForbidden, true},
		"a list of resources":                 {http.MethodGet, tokens + "?resourceVersion=0", http.StatusForbidden, true},
		"no CRD":                              {http.MethodGet, tokens + "?limit=500", http.StatusNotFound, false},
		"a list that works":                   {http.MethodGet, secrets + "?limit=500", http.StatusOK, false},
		"an API server in trouble":            {http.MethodGet, secrets + "?limit=500", http.StatusServiceUnavailable, false},
		"no longer logged in":                 {http.MethodGet, secrets + "?limit=500", http.StatusUnauthorized, false},
		"a watch":                             {http.MethodGet, secrets + "?watch=true&resourceVersion=1", http.StatusForbidden, false},
		"whether there is a CRD":              {http.MethodGet, tokens + "?limit=1", http.StatusForbidden, false},
		"one Secret":                          {http.MethodGet, secrets + "/shop", http.StatusForbidden, false},
		"pods":                                {http.MethodGet, "/api/v1/namespaces/shop/pods?limit=16", http.StatusForbidden, false},
		"all namespaces":                      {http.MethodGet, "/api/v1/secrets?limit=500", http.StatusForbidden, false},
		"a write":                             {http.MethodPost, secrets, http.StatusForbidden, false},
	} {
		transport := Namespaces([]string{"shop"}, lists(), logr.Discard(), func(string, bool) {})(answers(test.code))
		req, err := http.NewRequestWithContext(t.Context(), test.method, "https://kubernetes"+test.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if empty := strings.Contains(string(body), `"items":[]`); empty != test.empty || empty != (res.StatusCode == http.StatusOK && test.code != http.StatusOK) {
			t.Errorf("%s: %d %s", name, res.StatusCode, body)
		}
	}
	if got := Namespaces(nil, nil, logr.Discard(), nil)(answers(http.StatusOK)); got != answers(http.StatusOK) {
		t.Errorf("an operator of all namespaces has a %T", got)
	}
}

// TestNamespaceIsServedWhileNothingIsRefused follows the answers to the lists and watches of a namespace.
func TestNamespaceIsServedWhileNothingIsRefused(t *testing.T) {
	const (
		secrets = "/api/v1/namespaces/shop/secrets"
		tokens  = "/apis/wechat.apptoken.dev/v1alpha1/namespaces/shop/wechatapptokens"
		list    = "?limit=500"
		watch   = "?watch=true"
	)
	type step struct {
		url    string
		code   int // of the API server
		want   int // what the cache sees
		served bool
	}
	ok, no := http.StatusOK, http.StatusForbidden
	for name, test := range map[string]struct {
		steps []step
		lines int // of the log
	}{
		"refused, granted":    {[]step{{secrets + list, no, ok, false}, {secrets + list, ok, ok, true}}, 2},
		"refused for a while": {[]step{{secrets + list, no, ok, false}, {secrets + list, no, ok, false}, {secrets + watch, no, no, false}}, 1},
		// The cache still has what could be read once, so the list does not become empty.
		"lost later": {[]step{
			{secrets + list, ok, ok, true}, {secrets + list, no, no, false}, {secrets + list, no, no, false}, {secrets + watch, no, no, false},
		}, 1},
		"lost and granted":          {[]step{{secrets + list, ok, ok, true}, {secrets + watch, no, no, false}, {secrets + watch, ok, ok, true}}, 2},
		"a watch is also a list":    {[]step{{secrets + list, no, ok, false}, {secrets + watch, ok, ok, true}, {secrets + list, no, no, false}}, 3},
		"a list is not a watch":     {[]step{{secrets + watch, no, no, false}, {secrets + list, ok, ok, false}, {secrets + watch, no, no, false}}, 1},
		"one resource of two":       {[]step{{tokens + list, no, ok, false}, {secrets + list, ok, ok, false}, {secrets + watch, ok, ok, false}}, 1},
		"one after the other":       {[]step{{tokens + list, no, ok, false}, {secrets + list, no, ok, false}, {tokens + list, ok, ok, false}}, 1},
		"the API server in trouble": {[]step{{tokens + list, ok, ok, true}, {tokens + list, http.StatusServiceUnavailable, http.StatusServiceUnavailable, true}}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var (
				code, lines int
				served      = true
			)
			log := funcr.New(func(string, string) { lines++ }, funcr.Options{})
			transport := Namespaces([]string{"shop"}, lists(), log, func(namespace string, yes bool) { served = yes && namespace == "shop" })(
				roundTripper(func(r *http.Request) (*http.Response, error) { return answers(code).RoundTrip(r) }))
			for i, s := range test.steps {
				code = s.code
				req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://kubernetes"+s.url, nil)
				res, err := transport.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				_ = res.Body.Close()
				if res.StatusCode != s.want || served != s.served {
					t.Errorf("step %d: %d, served %t, want %d, %t", i+1, res.StatusCode, served, s.want, s.served)
				}
			}
			if lines != test.lines {
				t.Errorf("%d lines in the log, want %d", lines, test.lines)
			}
		})
	}
}
