// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
	"github.com/wechat-token-operator/wechat-token-operator/test/browser"
)

// openH5 applies examples/h5 and opens its page. The stand-in for WeChat's JS-SDK is on this machine, as the browser is. It asks the
// stand-in in the cluster which signatures are right, and so which ticket the operator wrote.
func (w *world) openH5(t *testing.T) {
	standIn := w.standIn(t)
	accepts := func(p wechattest.PageConfig) bool {
		ok, err := standIn.SignatureValid(t.Context(), p.AppID, p.NonceStr, p.Timestamp.String(), p.URL, p.Signature)
		if err != nil {
			t.Error(err)
		}
		return ok
	}
	sdk := httptest.NewServer(wechattest.JSSDK(accepts))
	defer sdk.Close()

	start := time.Now()
	// What a user does not have to say: where the script is, and that nothing is pulled.
	w.apply(t, strings.ReplaceAll(read(t, "examples", "h5", "manifests", "h5.yaml"), "        image: h5:dev\n",
		"        image: h5:"+firstTag+"\n        imagePullPolicy: Never\n        args: [--script-url="+sdk.URL+wechattest.JSSDKPath+"]\n"))
	w.apply(t, read(t, "examples", "h5", "manifests", "token.yaml"))
	w.kubectl(t, "-n", shop, "rollout", "status", "deployment/h5", "--timeout=3m")
	w.kubectl(t, "-n", shop, "wait", "--for=condition=Ready", "wxtoken/shop", "--timeout=60s")
	served := time.Since(start)

	const host = "shop.example.com" // as in the manifest
	page := "http://" + host + "/?from=singlemessage"
	address := w.forward(t, shop, "service/h5", "80")
	config := signature(t, "http://"+address+"/signature?url="+url.QueryEscape(page))
	config.URL = page
	if !accepts(config) {
		t.Error("the signature was not made with a ticket that WeChat accepts")
	}
	if config.URL += "#"; !accepts(config) {
		t.Error("the fragment counts")
	}
	if config.URL = "http://" + host + "/"; accepts(config) {
		t.Error("any signature would do")
	}
	if browser.Path() == "" {
		w.table.saw("a page with a ticket after %.1f s, its signature is right; no browser is installed", served.Seconds())
		return
	}
	dom := browser.DOM(t, page+"#top", "--host-resolver-rules=MAP "+host+" "+address)
	if !strings.Contains(dom, `data-state="ready"`) {
		t.Errorf("the page does not become ready:\n%s", dom)
	}
	w.table.saw("the pod has its ticket after %.1f s, and WeChat's script accepts the page", served.Seconds())
}

// signature asks for a signature.
func signature(t *testing.T, address string) (got wechattest.PageConfig) {
	t.Helper()
	res, err := (&http.Client{Timeout: 30 * time.Second}).Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if err := json.NewDecoder(res.Body).Decode(&got); err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", address, res.Status, err)
	}
	return got
}
