// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The README is followed to the letter, where the operator and the stand-in are installed by make cluster-operator.
func TestReadme(t *testing.T) {
	if os.Getenv("E2E") == "" {
		t.Skip("make e2e runs it on a cluster")
	}
	bash := func(script, stdin string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", script)
		cmd.Dir, cmd.Stdin = root, strings.NewReader(stdin)
		cmd.Env = append(os.Environ(), "PATH="+os.Getenv("KUBEBUILDER_ASSETS")+":"+filepath.Dir(os.Getenv("WXTOKEN"))+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s\n%v: %s", script, err, out)
		}
		return string(out)
	}
	bash("hack/cluster/operator.sh", "")
	readme := read(t, "README.md")
	bash(block(t, readme, "create secret generic shop-wechat"), firstSecret+"\n")
	out := bash(block(t, readme, "kind: WeChatAppToken"), "")
	if !regexp.MustCompile(`shop +wx0123456789abcdef +Stable +True +shop-token`).MatchString(out) {
		t.Errorf("it ends with\n%s", out)
	}
	bash("kubectl apply -f examples/show-token/pod.yaml; kubectl -n shop wait --for=condition=Ready pod/show-token --timeout=60s", "")
	token := bash(`kubectl -n shop get secret shop-token -o jsonpath='{.data.access_token}' | base64 -d`, "")
	if out := bash("kubectl -n shop logs pod/show-token", ""); !strings.Contains(out, token) {
		t.Errorf("the pod does not show its token: %s", out)
	}
	bash("hack/cluster/qrcode.sh", "")
	bash("kubectl wxtoken doctor", "")
	bash("kubectl delete namespace shop wechat wechat-token-operator-system; kubectl delete crd wechatapptokens.wechat.apptoken.dev wechatappclients.wechat.apptoken.dev", "")
}

// block is the first block of shell in a document with this text.
func block(t *testing.T, document, with string) string {
	t.Helper()
	for _, found := range regexp.MustCompile("(?ms)^( *)```sh\n(.*?)^ *```").FindAllStringSubmatch(document, -1) {
		if strings.Contains(found[2], with) {
			return regexp.MustCompile("(?m)^"+found[1]).ReplaceAllString(found[2], "")
		}
	}
	t.Fatalf("no block has %q", with)
	return ""
}
