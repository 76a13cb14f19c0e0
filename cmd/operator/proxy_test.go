// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/onsi/gomega"
)

// TestProxySetting checks that a proxy setting that net/http would ignore is refused, and that white space around one does no harm.
func TestProxySetting(t *testing.T) {
	for value, says := range map[string]string{
		"":                                      "",
		"http://proxy.example.com:3128":         "",
		"http://proxy.example.com:3128\n":       "",
		"\ufeffhttp://proxy.example.com:3128 ":  "",
		"\r\n":                                  "",
		"proxy.example.com:3128":                "",
		"HTTPS://proxy.example.com":             "",
		"socks5://proxy.example.com:1080":       "",
		"http://u:secret@proxy.example.com":     "",
		"http://u:secret@proxy:port":            "not a valid URL",
		"http://u:sec%ret@proxy":                "not a valid URL",
		"http://":                               "not a valid URL",
		"ftp://u:secret@proxy":                  "begin with http://, https:// or socks5://",
		`"http://proxy.example.com:3128"`:       "not a valid URL",
		"http://u:secret@proxy\n.example.com":   "U+000A at position 22",
		"http://u:secret@proxy\u200b.example":   "U+200B at position 22",
		"http://u:secret@proxy.example\u00a0:1": "U+00A0",
		"http://proxy.example.com:3128 # mine":  "a space",
	} {
		t.Run(value, func(t *testing.T) {
			t.Setenv("HTTPS_PROXY", value)
			err := parse(t).complete()
			if (err == nil) != (says == "") {
				t.Fatalf("got %v", err)
			}
			if err != nil && (strings.Contains(err.Error(), "sec") || !strings.Contains(err.Error(), says)) {
				t.Errorf("got %v, want %q and no password", err, says)
			}
		})
	}
}

// recorder is a proxy that refuses everything and notes what it was asked for.
type recorder struct {
	*httptest.Server

	mu    sync.Mutex
	hosts bytes.Buffer
}

func newRecorder(t *testing.T) *recorder {
	t.Helper()
	r := &recorder{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.hosts.WriteString(req.Host + "\n")
		http.Error(w, "no", http.StatusForbidden)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *recorder) asked() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.hosts.String()
}

// TestProxyIsWeChatsAlone starts an operator with a proxy in its environment. The API server, whose name no resolver knows, must not
// be called through it, unless the kubeconfig names a proxy of its own. The settings end with a newline, as they do in a file.
func TestProxyIsWeChatsAlone(t *testing.T) {
	const server = "api.cluster.invalid:6443"
	for _, scheme := range []string{"https", "http"} {
		t.Run(scheme, func(t *testing.T) {
			g := gomega.NewWithT(t)
			fromEnvironment := newRecorder(t)
			for _, name := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"} {
				t.Setenv(name, fromEnvironment.URL+"\n")
			}
			p := startProcess(t, kubeconfigFor(scheme+"://"+server), "--health-probe-bind-address=0\n")
			g.Eventually(p.logged, 20*time.Second).Should(gomega.ContainSubstring("cannot be reached"))
			g.Expect(fromEnvironment.asked()).To(gomega.BeEmpty())

			ofKubeconfig := newRecorder(t)
			config := bytes.Replace(kubeconfigFor(scheme+"://"+server), []byte("{server:"), []byte("{proxy-url: "+ofKubeconfig.URL+", server:"), 1)
			p = startProcess(t, config, "--health-probe-bind-address=0")
			g.Eventually(ofKubeconfig.asked, 20*time.Second).Should(gomega.ContainSubstring(server))
			g.Expect(fromEnvironment.asked()).To(gomega.BeEmpty())
			p.terminate(t, 10*time.Second)
		})
	}
}

// TestSettingsWithNewlines starts an operator whose flags and variables all come from files that end with a newline, and whose
// KUBECONFIG does too.
func TestSettingsWithNewlines(t *testing.T) {
	g := gomega.NewWithT(t)
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, kubeconfigFor("http://127.0.0.1:1"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HTTPS_PROXY", "http://proxy.example.com:3128\n")
	t.Setenv("NO_PROXY", "a.example\nb.example\n")
	t.Setenv("GOGC", "50\n")
	p := &process{}
	p.start(t, path+"\n",
		"--wechat-endpoints=https://a.example,\nhttps://b.example\n", "--wechat-timeout=7s\n", "--wechat-max-in-flight= 8 ", "--namespaces=a,b\n",
		"--watch-label-selector=shard=1\n", "--leader-elect=true\n", "--leader-election-id=mine\r\n", "--leader-election-namespace=\ufeffops",
		"--metrics-bind-address=0\n", "--health-probe-bind-address=0\u00a0", "--zap-log-level=info\n", "--kube-api-qps=-1\n")
	g.Eventually(p.logged, 20*time.Second).Should(gomega.And(
		gomega.ContainSubstring(`"leaderElectionID":"mine"`), gomega.ContainSubstring(`"namespaces":["a","b"]`), gomega.ContainSubstring(`127.0.0.1:1`)))
	p.terminate(t, 10*time.Second)
}

// TestInvisibleInASetting checks that a message about a setting shows the invisible character inside it.
func TestInvisibleInASetting(t *testing.T) {
	t.Parallel() // it waits for a process
	for arg, says := range map[string]string{
		"--wechat-endpoints=https://api\u200b.weixin.qq.com": "U+200B",
		"--wechat-ca-file=/etc/wechat\u200b/ca.crt":          `wechat\u200b/ca.crt`,
		"--namespaces=sh\u200bop":                            `sh\u200bop`,
		"--namespaces=a\nb":                                  `a\nb`,
		"--watch-label-selector=a\u200b=b":                   `a\u200b`,
		"--leader-election-id=my\u200bid":                    `my\u200bid`,
		"--leader-election-namespace=my\u00a0ns":             `my\u00a0ns`,
		"--metrics-bind-address=:84\u200b43":                 `84\u200b43`,
		"--health-probe-bind-address=:80\u200b81":            `80\u200b81`,
		"--pprof-bind-address=127.0.0.1:60\u200b60":          `60\u200b60`,
		"--wechat-timeout=5\u200bs":                          `5\u200bs`,
		"--leader-elect=tr\u200bue":                          `tr\u200bue`,
		"--kubeconfig=/etc/ku\u200bbe":                       `ku\u200bbe`,
		"leader-elect\u200b=1":                               `leader-elect\u200b=1`,
	} {
		t.Run(arg, func(t *testing.T) {
			g := gomega.NewWithT(t)
			p := startProcess(t, kubeconfigFor("http://127.0.0.1:1"), "--health-probe-bind-address=0", arg)
			var err error
			g.Eventually(p.ended, 20*time.Second).Should(gomega.Receive(&err))
			if err == nil || !strings.Contains(strings.ReplaceAll(p.logged(), `\\`, `\`), says) {
				t.Errorf("ended with %v, want %s in:\n%s", err, says, p.logged())
			}
		})
	}
}
