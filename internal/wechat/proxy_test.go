// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// The environment of a test binary that is started again: net/http reads the proxy once per process, and
// no proxy is used for loopback addresses. No resolver knows the endpoint; the proxy does.
const (
	envChild    = "WECHAT_TEST_PROXY_CA"
	proxiedHost = "www.example.com:8443" // on the certificate of net/http/httptest
	saysPrefix  = "says: "
)

// TestProxyChild makes the calls, in a process whose environment has a proxy.
func TestProxyChild(t *testing.T) {
	ca, ok := os.LookupEnv(envChild)
	if !ok {
		t.Skip("it is started by TestProxy")
	}
	for _, call := range allCalls {
		_, err := call.do(t.Context(), newClient(t, Options{Endpoints: []string{"https://" + proxiedHost}, CAFile: ca}))
		if err == nil {
			fmt.Fprintln(os.Stdout, saysPrefix+"OK")
			continue
		}
		e := wantError(t, err, token.Transient, v1alpha1.ReasonUnreachable, 0)
		if e.MaybeSent {
			t.Error("MaybeSent is true")
		}
		fmt.Fprintln(os.Stdout, saysPrefix+e.Error())
	}
}

// child runs TestProxyChild and returns what it says to each call.
func child(t *testing.T, ca, proxy string, more ...string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestProxyChild$", "-test.v")
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); !strings.HasSuffix(strings.ToUpper(name), "_PROXY") && name != "REQUEST_METHOD" {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, envChild+"="+ca, "HTTPS_PROXY="+proxy, "GORACE=atexit_sleep_ms=0")
	cmd.Env = append(cmd.Env, more...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	clean(t, "the output", string(out))
	var says []string
	for line := range strings.Lines(string(out)) {
		if text, ok := strings.CutPrefix(line, saysPrefix); ok {
			says = append(says, strings.TrimSpace(text))
		}
	}
	if len(says) != len(allCalls) {
		t.Fatalf("%d answers, want %d:\n%s", len(says), len(allCalls), out)
	}
	return says
}

// proxyTo starts a proxy that joins tunnels to a server, or refuses them with a status.
func proxyTo(t *testing.T, addr string, status int) *server {
	t.Helper()
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		want := "Basic " + base64.StdEncoding.EncodeToString([]byte("me:"+proxyPassword))
		if r.Method != http.MethodConnect || r.Host != proxiedHost || r.Header.Get("Proxy-Authorization") != want {
			t.Errorf("%s %s, %v", r.Method, r.Host, r.Header)
		}
		if status != http.StatusOK {
			http.Error(w, r.Header.Get("Proxy-Authorization")+proxyPassword, status)
			return
		}
		there, err := net.Dial("tcp", addr)
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = there.Close() }()
		_ = http.NewResponseController(w).Flush()
		here, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = here.Close() }()
		go func() { _, _ = io.Copy(there, rw) }()
		_, _ = io.Copy(here, there)
	})
}

func TestProxy(t *testing.T) {
	s := serveTLS(t, nil, func(w http.ResponseWriter, r *http.Request) {
		if r.Host != proxiedHost || r.Header.Get("Proxy-Authorization") != "" {
			t.Errorf("%s, %v", r.Host, r.Header)
		}
		answering(w, r)
	})
	ca, addr := s.caFile(t), strings.TrimPrefix(s.URL, "https://")
	withPassword := func(url string) string { return strings.Replace(url, "://", "://me:"+proxyPassword+"@", 1) }

	t.Run("tunnel", func(t *testing.T) {
		proxy := proxyTo(t, addr, http.StatusOK)
		for i, text := range child(t, ca, withPassword(proxy.URL)) {
			if !strings.HasPrefix(text, "OK") {
				t.Errorf("%s: %s", allCalls[i].name, text)
			}
		}
		proxy.wantHits(t, int32(len(allCalls)))
		s.wantHits(t, int32(len(allCalls)))
	})
	t.Run("NO_PROXY", func(t *testing.T) {
		proxy := proxyTo(t, addr, http.StatusOK)
		for i, text := range child(t, ca, withPassword(proxy.URL), "NO_PROXY=.example.com") {
			if !strings.Contains(text, "its name was not resolved") && !strings.Contains(text, "No answer") {
				t.Errorf("%s: %s", allCalls[i].name, text)
			}
		}
		proxy.wantHits(t, 0)
	})
	for _, tt := range []struct{ name, proxy, says string }{
		{"refused", withPassword(proxyTo(t, addr, 407).URL), "No answer from " + proxiedHost + ": the proxy answered HTTP 407."},
		{"forbidden", withPassword(proxyTo(t, addr, 403).URL), "the proxy answered HTTP 403."},
		{"unreachable", withPassword(refusing(t)), "the proxy was not reached."},
		{"no TLS", strings.Replace(withPassword(proxyTo(t, addr, 403).URL), "http:", "https:", 1), "the proxy was not reached."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for i, text := range child(t, ca, tt.proxy) {
				if !strings.Contains(text, tt.says) {
					t.Errorf("%s: %s, want %s", allCalls[i].name, text, tt.says)
				}
			}
		})
	}
	s.wantHits(t, int32(len(allCalls)))
}
