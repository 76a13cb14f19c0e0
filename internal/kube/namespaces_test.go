// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/go-logr/logr"
)

// answers is a transport that always answers with a code.
type answers int

func (a answers) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: int(a), Body: io.NopCloser(strings.NewReader("the answer"))}, nil
}

func TestListsThatCountAsEmpty(t *testing.T) {
	lists := Lists{
		"secrets":         {Kind: "PartialObjectMetadataList", APIVersion: "meta.k8s.io/v1"},
		"wechatapptokens": {Kind: "WeChatAppTokenList", APIVersion: "wechat.apptoken.dev/v1alpha1"},
	}
	const secrets, tokens = "/api/v1/namespaces/shop/secrets", "/apis/wechat.apptoken.dev/v1alpha1/namespaces/shop/wechatapptokens"
	for name, test := range map[string]struct {
		method, url string
		code        int
		empty       bool
	}{
		"a list of Secrets that is forbidden": {http.MethodGet, secrets + "?limit=500", http.StatusForbidden, true},
		"a list of resources":                 {http.MethodGet, tokens + "?resourceVersion=0", http.StatusForbidden, true},
		"not found":                           {http.MethodGet, tokens + "?limit=500", http.StatusNotFound, true},
		"a list that works":                   {http.MethodGet, secrets + "?limit=500", http.StatusOK, false},
		"an API server in trouble":            {http.MethodGet, secrets + "?limit=500", http.StatusServiceUnavailable, false},
		"no longer logged in":                 {http.MethodGet, secrets + "?limit=500", http.StatusUnauthorized, false},
		"a watch":                             {http.MethodGet, secrets + "?watch=true&resourceVersion=1", http.StatusForbidden, false},
		"one Secret":                          {http.MethodGet, secrets + "/shop", http.StatusForbidden, false},
		"pods":                                {http.MethodGet, "/api/v1/namespaces/shop/pods?limit=16", http.StatusForbidden, false},
		"all namespaces":                      {http.MethodGet, "/api/v1/secrets?limit=500", http.StatusForbidden, false},
		"a write":                             {http.MethodPost, secrets, http.StatusForbidden, false},
	} {
		transport := Namespaces([]string{"shop"}, lists, logr.Discard(), func(string, bool) {})(answers(test.code))
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
	// What could be read once does not become empty, because the cache still has it.
	codes := []int{http.StatusOK, http.StatusForbidden}
	transport := Namespaces([]string{"shop"}, lists, logr.Discard(), func(string, bool) {})(roundTripper(func(r *http.Request) (*http.Response, error) {
		code := codes[0]
		codes = codes[1:]
		return answers(code).RoundTrip(r)
	}))
	for _, want := range codes {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://kubernetes"+secrets+"?limit=500", nil)
		res, err := transport.RoundTrip(req)
		if err != nil || res.StatusCode != want {
			t.Errorf("%v %v, want %d", res, err, want)
			continue
		}
		_ = res.Body.Close()
	}
	if got := Namespaces(nil, nil, logr.Discard(), nil)(answers(http.StatusOK)); got != answers(http.StatusOK) {
		t.Errorf("an operator of all namespaces has a %T", got)
	}
}
