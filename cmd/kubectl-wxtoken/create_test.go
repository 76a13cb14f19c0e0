// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// TestCreate checks that the printed manifest is what the API server takes, that a dry run creates nothing, and that a real run says what
// comes next.
func TestCreate(t *testing.T) {
	w := newWorld(t, "create")
	flags := []string{"create", "shop", "--app-id=" + w.appID, "--ticket=jsapi", "--check-interval=90s"}
	with := func(more ...string) []string { return append(append([]string{}, flags...), more...) }

	w.golden("create.yaml", w.ok(with("--dry-run=client", "-o", "yaml")...))
	w.wants(w.wxtoken(with("--dry-run=server")...), exitOK, "shop: created (server dry run)")
	w.wants(w.wxtoken("status", "shop"), exitFailed, `has no WeChatAppToken "shop"`)
	w.wants(w.wxtoken("create", "shop", "--app-id=gh_0123", "--dry-run=server"), exitFailed, "must be an AppID such as wx0123456789abcdef")

	w.wants(w.wxtoken(flags...), exitOK, "shop: created", "Secret shop-wechat does not exist yet; this creates it.",
		"  kubectl create secret generic shop-wechat -n "+w.namespace+" --from-file=appSecret=/dev/stdin\n",
		"This waits for the token:", "  kubectl wxtoken wait shop -n "+w.namespace+"\n")
	w.eventuallyState("shop", stateReconciling, v1alpha1.ReasonCredentialsNotFound)
	if r := w.wxtoken("create", "again", "--app-id="+w.appID, "--credentials-secret=shop-wechat", "--mode=Legacy", "-o", "name"); r.out != "wechatapptoken.wechat.apptoken.dev/again\n" {
		t.Errorf("%+v", r)
	}
	if got := w.token("again"); got.Spec.Mode != v1alpha1.ModeLegacy || got.Spec.CredentialsSecretRef.Name != "shop-wechat" {
		t.Errorf("%+v", got.Spec)
	}
	w.wants(w.wxtoken(flags...), exitFailed, "already exists")
	w.wants(w.wxtoken("create", "shop"), exitUsage, "--app-id is required")
	w.wants(w.wxtoken("create", "--app-id=x"), exitUsage, "give the new resource one name")
	w.wants(w.wxtoken(with("--dry-run=perhaps")...), exitUsage, "--dry-run must be none, client or server")
	w.wants(w.wxtoken(with("-o", "wide")...), exitUsage, "-o wide")
}
