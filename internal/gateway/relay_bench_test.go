// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// benchHandler does with a call what the front does after its decision, with audit and metrics.
type benchHandler struct {
	relay   *Relay
	audit   *Audit
	metrics *Metrics
	client  *Client
}

func (h *benchHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	target, err := ParseTarget(r.RequestURI)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	call := &Call{
		ID: "0123456789abcdef", Started: time.Now(), Peer: netip.IPv6Loopback(), Method: r.Method, Target: target, Kind: KindRelay, By: ByToken,
		Client: h.client,
	}
	defer func() {
		h.audit.Record(call)
		h.metrics.Record(call)
	}()
	h.relay.relay(w, r, forward{
		call: call, path: target.Path, token: h.client.Account.Token, query: func(tok token.Value) string { return target.Query(tok) },
	})
}

// benchUpstream is WeChat over TCP, as cheap as net/http makes it.
func benchUpstream(b *testing.B) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", fmt.Sprint(len(okJSON)))
		_, _ = io.WriteString(w, okJSON)
	}))
	b.Cleanup(s.Close)
	return s
}

func benchCalls(b *testing.B, handler http.Handler) {
	front := httptest.NewServer(handler)
	b.Cleanup(front.Close)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	body := []byte(`{"touser":"o6_bmjrPTlm6_2sgVt7hMZOPfL2M","msgtype":"text","text":{"content":"Hello World"}}`)
	target := front.URL + "/cgi-bin/message/custom/send?access_token=" + gatewayText
	b.ReportAllocs()
	for b.Loop() {
		res, err := client.Post(target, "application/json", bytes.NewReader(body))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != http.StatusOK {
			b.Fatal(err, res.StatusCode)
		}
		_ = res.Body.Close()
	}
}

// BenchmarkRelay and BenchmarkBareProxy differ by what the gateway adds to httputil.ReverseProxy. Both have the same transport.
func BenchmarkRelay(b *testing.B) {
	client := holding(staleToken)
	relay, err := NewRelay(RelayOptions{Endpoints: []string{benchUpstream(b).URL}, Source: newStore(client)})
	if err != nil {
		b.Fatal(err)
	}
	sink, err := OpenAudit(filepath.Join(b.TempDir(), "audit.log"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = sink.Close() })
	audit := NewAudit(sink, time.Now)
	b.Cleanup(audit.Close)
	metrics, err := NewMetrics(prometheus.NewRegistry(), relay, audit, nil)
	if err != nil {
		b.Fatal(err)
	}
	benchCalls(b, &benchHandler{relay: relay, audit: audit, metrics: metrics, client: client})
}

func BenchmarkBareProxy(b *testing.B) {
	to, err := url.Parse(benchUpstream(b).URL)
	if err != nil {
		b.Fatal(err)
	}
	transport := &http.Transport{
		DialContext: (&net.Dialer{}).DialContext, MaxIdleConnsPerHost: 512, MaxConnsPerHost: 512, DisableCompression: true,
	}
	b.Cleanup(transport.CloseIdleConnections)
	benchCalls(b, &httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		r.Out.URL.RawQuery = "access_token=" + staleToken
	}})
}
