// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
)

func TestStatus(t *testing.T) {
	w := newWorld(t, "status")
	w.createFamily()
	now := w.lookLater("shop")
	w.golden("status-ready.txt", w.ok("status", "shop"), w.refreshIn("shop", now)...)
	w.golden("status-paused.txt", w.ok("status", "wxtoken/paused"))
	w.golden("status-no-credentials.txt", w.ok("status", "no-credentials"))
	for _, want := range []string{"Stalled: AppSecretInvalid", "RefreshFailed: AppSecretInvalid", "errcode 40125", "kubectl wxtoken check wrong-secret"} {
		if out := w.ok("status", "wrong-secret"); !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
}

// The story is told without the data of the Secret: the API server is asked for metadata alone.
func TestStatusReadsNoData(t *testing.T) {
	w := newWorld(t, "status-data")
	w.createToken("shop")
	w.lookLater("shop")
	w.ok("status", "shop")
	w.ok("list")
	requests, err := env.Requests(func(r testenv.Request) bool {
		return r.Object.Namespace == w.namespace && r.Object.Resource == "secrets" && strings.HasPrefix(r.UserAgent, fieldManager+"/")
	})
	w.must(err)
	if len(requests) != 1 || requests[0].Verb != "get" {
		t.Fatalf("requests for Secrets: %+v", requests)
	}
}

// Who may see WeChatAppTokens and nothing else gets the story with a gap.
func TestStatusForAViewer(t *testing.T) {
	w := newWorld(t, "status-viewer")
	w.createToken("shop")
	w.lookLater("shop")
	w.grant("viewer", "view-wxtoken", rule(v1alpha1.GroupName, "wechatapptokens", "get", "list"))
	out := w.ok("status", "shop", "--as", "viewer")
	for _, want := range []string{"Ready: TokenValid", `Not shown: could not read the annotations of Secret "shop-token"`, "Not shown: could not list events"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
}
