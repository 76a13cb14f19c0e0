// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	"k8s.io/cli-runtime/pkg/genericiooptions"
)

// bare runs the plugin with a kubeconfig of its own, without a cluster of the tests.
func bare(t *testing.T, kubeconfig string, console terminal, args ...string) result {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(path, []byte(kubeconfig), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errOut bytes.Buffer
	console.IOStreams = genericiooptions.IOStreams{In: strings.NewReader(""), Out: &out, ErrOut: &errOut}
	if console.now == nil {
		console.now = time.Now
	}
	if console.getenv == nil {
		console.getenv = func(string) string { return "" }
	}
	code := run(t.Context(), console, append([]string{"--kubeconfig", path}, args...))
	return result{code: code, out: out.String(), err: errOut.String()}
}

func kubeconfigWith(server, user string) string {
	return fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u, namespace: shop}}],
		clusters: [{name: c, cluster: {server: %q, insecure-skip-tls-verify: true}}], users: [{name: u, user: %s}]}`, server, user)
}

// lists is an API server that answers every request with a list.
func lists(t *testing.T, items string, seen func(*http.Request)) string {
	t.Helper()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen(r)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"apiVersion":"wechat.apptoken.dev/v1alpha1","kind":"WeChatAppTokenList","metadata":{},"items":[`+items+`]}`)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// TestAuthProviders checks that a kubeconfig with an auth-provider works if kubectl knows it too, and otherwise says what to do.
func TestAuthProviders(t *testing.T) {
	part := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	jwt := part(`{"alg":"RS256"}`) + "." + part(fmt.Sprintf(`{"exp":%d}`, time.Now().Add(time.Hour).Unix())) + ".c2ln"
	got := ""
	server := lists(t, "", func(r *http.Request) { got = r.Header.Get("Authorization") })
	oidc := fmt.Sprintf(`{auth-provider: {name: oidc, config: {idp-issuer-url: "https://issuer.invalid", client-id: c, id-token: %q}}}`, jwt)
	r := bare(t, kubeconfigWith(server, oidc), terminal{}, "list")
	if r.code != exitOK || got != "Bearer "+jwt {
		t.Errorf("exit code %d, Authorization %q: %s", r.code, got, r.err)
	}
	for name, says := range map[string]string{
		"gcp":      "gke-gcloud-auth-plugin",
		"azure":    "kubelogin",
		"tectonic": `name "tectonic"`,
	} {
		r := bare(t, kubeconfigWith(server, "{auth-provider: {name: "+name+"}}"), terminal{}, "list")
		if r.code != exitFailed || !strings.Contains(r.err, says) || !strings.Contains(r.err, "kubectl config view") {
			t.Errorf("%s: exit code %d: %s", name, r.code, r.err)
		}
	}
}

// hostile is a text that no terminal may get as it is: escape sequences, also those of one byte, and marks that turn text around.
const hostile = "\x1b[2J\x1b]0;x\x07 \u009b31m \u202e\u2066 \u200b\u0085 \r\x7f end"

// TestNothingHostileIsPrinted checks that texts of the cluster reach the terminal without control characters.
func TestNothingHostileIsPrinted(t *testing.T) {
	check := func(what, text string) {
		t.Helper()
		for _, r := range text {
			if r != '\n' && !unicode.IsPrint(r) {
				t.Errorf("%s prints %q in %q", what, r, text)
				return
			}
		}
		if !strings.Contains(text, "end") {
			t.Errorf("%s does not print the text: %q", what, text)
		}
	}
	check("clean", clean(hostile))
	var out bytes.Buffer
	printError(&out, shell{}, failed(hostile+"\n"+hostile, "%s", hostile))
	check("printError", out.String())
	tab := &table{}
	tab.add(cell{text: hostile}, cell{text: hostile})
	check("a table", strings.Join(tab.lines(palette{}), "\n"))
	o := &listOptions{app: &app{terminal: terminal{IOStreams: genericiooptions.IOStreams{Out: io.Discard, ErrOut: &out}}}}
	out.Reset()
	updates := make(chan news, 1)
	updates <- news{err: failed("", "%s", hostile)}
	close(updates)
	if err := o.stream(updates, nil); err != nil {
		t.Error(err)
	}
	check("list -w", out.String())

	quoted := strings.NewReplacer("\x1b", `\u001b`, "\x07", `\u0007`, "\r", `\r`).Replace(hostile)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `{"apiVersion":"v1","kind":"Status","status":"Failure","reason":"Forbidden","code":403,"message":"`+quoted+`"}`)
	}))
	t.Cleanup(server.Close)
	check("a refusal", bare(t, kubeconfigWith(server.URL, "{}"), terminal{}, "list").err)
}

// TestConsoleWithoutEscapes checks that a console that does not understand escape sequences, such as one of an old Windows, gets none, and
// that any other gets colours unless it does not want them.
func TestConsoleWithoutEscapes(t *testing.T) {
	item := `{"metadata":{"name":"shop","namespace":"shop"},"spec":{"appID":"wx0123456789abcdef","mode":"Stable"},
		"status":{"conditions":[{"type":"Ready","status":"False","reason":"TokenExpired","message":"x"}]}}`
	server := lists(t, item, func(*http.Request) {})
	for name, tt := range map[string]struct {
		understands   bool
		env           map[string]string
		color, screen bool
	}{
		"terminal":               {understands: true, color: true, screen: true},
		"console without":        {},
		"dumb terminal":          {understands: true, env: map[string]string{"TERM": "dumb"}},
		"dumb, from a file":      {understands: true, env: map[string]string{"TERM": "dumb\n"}},
		"no colour":              {understands: true, env: map[string]string{"NO_COLOR": "1"}, screen: true},
		"no colour, set to none": {understands: true, env: map[string]string{"NO_COLOR": ""}, color: true, screen: true},
	} {
		console := terminal{knowsEscapes: func(io.Writer) bool { return tt.understands }, getenv: func(key string) string { return tt.env[key] }}
		r := bare(t, kubeconfigWith(server, "{}"), console, "list")
		if r.code != exitOK || strings.Contains(r.out, "\x1b") != tt.color {
			t.Errorf("%s: exit code %d: %q%s", name, r.code, r.out, r.err)
		}
		a := newApp(console)
		if a.escapes != tt.screen || a.paint.on != tt.color {
			t.Errorf("%s: screen %v, colour %v", name, a.escapes, a.paint.on)
		}
		var out bytes.Buffer
		a.Out = &out
		v := revocation{app: a, started: time.Now()}
		v.tick("waiting")
		v.say(green, "done")
		if strings.Contains(out.String(), "\x1b[K") != tt.screen {
			t.Errorf("%s: a revoke prints %q", name, out.String())
		}
	}
}

// TestTrimmedArguments checks that invisible characters around names and kubectl's flags do no harm, and that a template keeps them.
func TestTrimmedArguments(t *testing.T) {
	path := ""
	server := lists(t, "", func(r *http.Request) {
		if strings.Contains(r.URL.Path, "wechatapptokens") {
			path = r.URL.Path
		}
	})
	bare(t, kubeconfigWith(server, "{}"), terminal{}, "list", "--namespace", "ops\r\n", "--context=c\n", "--request-timeout= 9s ", "--field-selector=metadata.name=shop\n")
	if want := "/namespaces/ops/wechatapptokens"; !strings.HasSuffix(path, want) {
		t.Errorf("asked for %q, want %q", path, want)
	}
	bare(t, kubeconfigWith(server, "{}"), terminal{}, "status", "\ufeffwxtoken/shop\n")
	if want := "/namespaces/shop/wechatapptokens/shop"; !strings.HasSuffix(path, want) {
		t.Errorf("asked for %q, want %q", path, want)
	}
	if r := bare(t, kubeconfigWith(server, "{}"), terminal{}, "list", "-o", "go-template", "--template", "a\n\n"); r.out != "a\n\n" {
		t.Errorf("got %q: %s", r.out, r.err)
	}
	missing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"apiVersion":"v1","kind":"Status","status":"Failure","reason":"NotFound","code":404,"details":{"name":"x"}}`)
	}))
	t.Cleanup(missing.Close)
	if r := bare(t, kubeconfigWith(missing.URL, "{}"), terminal{}, "status", "sh\u200bop"); !strings.Contains(r.err, `sh\u200bop`) {
		t.Errorf("the invisible is not shown: %s", r.err)
	}
}
