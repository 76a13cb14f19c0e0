// SPDX-License-Identifier: Apache-2.0

package silence

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// TestSilence: whatever fails, the only place that holds a token is the target Secret, and none holds an AppSecret.
func TestSilence(t *testing.T) {
	s := newStage(t)
	s.create(t)
	program := s.operator(t)
	s.refusals(t)
	var quiet []string
	t.Cleanup(func() { t.Logf("show no failure: %v", quiet) })
	eventually(t, "each resource shows its failure", func() bool { quiet = s.quiet(t); return len(quiet) == 0 })
	places := program.places(t, s.namespace)
	s.report(t, places)

	needles := []string{appSecret, needle, plain}
	for _, issued := range s.wechat.Tokens("") {
		needles = append(needles, issued.Token)
	}
	x := newIndex(needles...)
	for place, text := range places {
		if forms, at := x.find(text); len(forms) > 0 {
			t.Errorf("%s holds a secret (%s): …%s…", place, forms, strings.ToValidUTF8(text[max(0, at-600):min(len(text), at+60)], "?"))
		}
	}
	// A search of nothing finds nothing.
	for _, place := range []string{"stderr", "dump", "environ", "cmdline", "metrics", "probes", "audit", "events.events.k8s.io"} {
		if places[place] == "" {
			t.Errorf("%s is empty", place)
		}
	}
	if len(needles) < 20 {
		t.Errorf("only %d secrets were in use", len(needles))
	}
	for _, said := range []string{`"action":"Issue"`, `"action":"Write"`, "the attempt failed", "goroutine "} {
		if !strings.Contains(places["stderr"]+places["dump"], said) {
			t.Errorf("the log does not say %q", said)
		}
	}
}

// stage is a namespace full of resources that fail.
type stage struct {
	client.Client

	namespace string
	wechat    *wechattest.Server
	// failing are the resources that must show their failure in the end.
	failing []string
}

func newStage(t *testing.T) *stage {
	t.Helper()
	server, err := wechattest.NewServer(wechattest.Options{AutoApps: true, Life: 24 * time.Second})
	must(t, err)
	t.Cleanup(server.Close)
	s := &stage{Client: newClient(t), namespace: newNamespace(t), wechat: server}
	must(t, s.Create(t.Context(), s.secret("credentials", appSecret)))
	return s
}

func (s *stage) secret(name, value string) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: name}, StringData: map[string]string{"appSecret": value},
	}
}

// create makes, for each failure and mode, a resource that never had a token and one that had.
func (s *stage) create(t *testing.T) {
	t.Helper()
	n := 0
	for name, fault := range faults() {
		for _, mode := range []v1alpha1.Mode{v1alpha1.ModeStable, v1alpha1.ModeLegacy} {
			for _, kind := range []string{"never", "had"} {
				n++
				token := newToken(s.namespace, strings.ToLower(fmt.Sprintf("%s-%s-%s", name, mode, kind)), fmt.Sprintf("wx%016d", n), mode)
				f := fault
				f.AppID = token.Spec.AppID
				if kind == "had" {
					s.wechat.Inject(goodOnce(token.Spec.AppID, mode, n))
				}
				s.wechat.Inject(f)
				must(t, s.Create(t.Context(), token))
				s.failing = append(s.failing, token.Name)
			}
		}
	}
}

// goodOnce answers the first call well: with the awkward token, or as the stand-in does.
func goodOnce(app string, mode v1alpha1.Mode, n int) wechattest.Fault {
	endpoint := wechattest.EndpointStable
	if mode == v1alpha1.ModeLegacy {
		endpoint = wechattest.EndpointLegacy
	}
	f := wechattest.Fault{AppID: app, Endpoint: endpoint, Times: 1, Delay: time.Millisecond}
	if n%2 == 0 {
		quoted, err := json.Marshal(needle)
		if err != nil {
			panic(err) // a string always encodes
		}
		f.Body = `{"access_token":` + string(quoted) + `,"expires_in":24}`
	}
	return f
}

// faults are all ways of WeChat to fail. It repeats what it was sent wherever it can.
func faults() map[string]wechattest.Fault {
	echo := fmt.Sprintf("appsecret %s token %s [%s] %s...", appSecret, plain, appSecret[:20], plain[:40])
	quoted, err := json.Marshal(echo)
	if err != nil {
		panic(err) // a string always encodes
	}
	out := map[string]wechattest.Fault{
		"html": {Body: "<html>" + echo, ContentType: "text/html"}, "cut-json": {Body: `{"access_token":` + string(quoted)},
		"garbage": {Garbage: true}, "text": {Body: echo}, "errcode-text": {Body: `{"errcode":` + string(quoted) + `}`},
		"expires-text": {Body: `{"access_token":"` + appSecret + `","expires_in":` + string(quoted) + `}`},
		"expires-0":    {Body: `{"access_token":"` + appSecret + `","expires_in":0}`}, "token-space": {Body: `{"access_token":` + string(quoted) + `,"expires_in":9}`},
		"token-empty": {Body: `{"access_token":"","expires_in":7200,"note":` + string(quoted) + `}`}, "twice": {Body: `{` + string(quoted) + `:1,` + string(quoted) + `:2}`},
		"both":       {Body: `{"errcode":47998,"errmsg":` + string(quoted) + `,"access_token":"` + strings.ReplaceAll(needle, `"`, "x") + `"}`},
		"hang":       {Hang: true},
		"cut-before": {Cut: wechattest.CutBefore}, "cut-after": {Cut: wechattest.CutAfter}, "cut-body": {Cut: wechattest.CutBody},
	}
	for _, status := range []int{301, 403, 404, 429, 500, 502, 503} {
		out[fmt.Sprintf("http-%d", status)] = wechattest.Fault{Status: status, Body: echo, ContentType: "text/plain"}
	}
	for _, code := range []int{
		-1, 45011, 45009, 89507, 89506, 40001, 40125, 40013, 40164, 61004, 45035, 89501, 89502, 89503, 89504, 89505, 40243,
		50002, 50004, 50007, 48004, 61024, 47999,
	} {
		out[fmt.Sprintf("code%d", code)] = wechattest.Fault{Errcode: code, Errmsg: echo + " invalid ip 203.0.113.7 rid: 6abc1234-0badcafe-12345678"}
	}
	return out
}

// quiet are the resources that do not show their failure yet.
func (s *stage) quiet(t *testing.T) []string {
	t.Helper()
	list := &v1alpha1.WeChatAppTokenList{}
	must(t, s.List(t.Context(), list, client.InNamespace(s.namespace)))
	var out []string
	for i := range list.Items {
		token := &list.Items[i]
		shown := slices.ContainsFunc(token.Status.Conditions, func(c metav1.Condition) bool {
			return c.Type == v1alpha1.ConditionRefreshFailing || c.Type == v1alpha1.ConditionStalled
		})
		if !shown && slices.Contains(s.failing, token.Name) {
			out = append(out, token.Name)
		}
	}
	return out
}

// build builds a program of cmd.
func build(t *testing.T, name string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), name)
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../../cmd/"+name) //nolint:gosec // our own path
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return program
}

// operator builds and starts the operator, with the rights of its ServiceAccount.
func (s *stage) operator(t *testing.T, args ...string) *process {
	t.Helper()
	kubeconfig, err := env.OperatorKubeConfig(t.Context())
	must(t, err)
	// The Lease is the one that the operator's role names.
	args = append(args, "--leader-elect", "--leader-election-namespace", testenv.OperatorNamespace,
		"--leader-election-id", "wechat-token-operator-01ba4719", "--namespaces", s.namespace)
	return start(t, build(t, "operator"), string(kubeconfig), s.wechat.URL(), nil, args...)
}

func (s *stage) report(t *testing.T, places map[string]string) {
	t.Helper()
	total := 0
	for _, text := range places {
		total += len(text)
	}
	t.Logf("%d resources, %d calls, %d tokens, %d places, %d KiB, of them %d KiB of logs", len(s.failing),
		s.wechat.Count(wechattest.Filter{}), len(s.wechat.Tokens("")), len(places), total>>10, (len(places["stderr"])+len(places["stdout"]))>>10)
}
