// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// proxy joins tunnels to one server and notes what it was asked for.
type proxy struct {
	*httptest.Server

	mu    sync.Mutex
	asked []string
}

func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	p := &proxy{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.asked = append(p.asked, r.Method+" "+r.Host)
		p.mu.Unlock()
		there, err := (&net.Dialer{}).DialContext(r.Context(), "tcp", to)
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadGateway)
			return
		}
		defer there.Close() //nolint:errcheck // the tunnel is over
		_ = http.NewResponseController(rw).Flush()
		here, buffered, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			return
		}
		defer here.Close() //nolint:errcheck // the tunnel is over
		go func() { _, _ = io.Copy(there, buffered) }()
		_, _ = io.Copy(here, there)
	}))
	t.Cleanup(p.CloseClientConnections)
	return p
}

// TestProxy: with proxy.httpsProxy the operator reaches WeChat through the proxy, under a name that nothing else can resolve.
// The API server is called without it; here that is so for any address of this machine itself, and a unit test of the
// chart checks NO_PROXY.
func TestProxy(t *testing.T) {
	w := newWorld(t, shared)
	p := newProxy(t, strings.TrimPrefix(w.wechat.URL(), "https://"))
	host := wechattest.ProxiedName + ":8443"
	w.endpoint = "https://" + host
	i := w.install(fmt.Sprintf("proxy: {httpsProxy: %q, noProxy: [.example.com]}\n", p.URL))
	i.createToken(i.shop)
	i.eventuallyReady(i.shop)
	i.operator.stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	if asked := slices.Compact(slices.Sorted(slices.Values(p.asked))); !slices.Equal(asked, []string{"CONNECT " + host}) {
		t.Errorf("the proxy was asked for %q", asked)
	}
}
