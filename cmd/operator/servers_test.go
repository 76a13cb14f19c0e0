// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/onsi/gomega"

	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv/testcert"
)

// TestServersOfTheProcess asks each port of an operator that was started by flags alone. All are bounded and speak HTTP/1.1 alone, and that
// of the metrics serves the certificate of its files as they are now. None of them needs an API server for it.
func TestServersOfTheProcess(t *testing.T) {
	t.Parallel() // it waits for a process
	g := gomega.NewWithT(t)
	g.SetDefaultEventuallyTimeout(30 * time.Second)
	const metrics, probes, profiles = "/metrics", "/healthz", "/debug/pprof/cmdline"
	addresses := map[string]string{metrics: "", probes: "", profiles: ""}
	for path := range addresses {
		address, err := testenv.FreeAddress()
		g.Expect(err).NotTo(gomega.HaveOccurred())
		addresses[path] = address
	}
	dir := t.TempDir()
	first, firstKey := testcert.Pair(t, "operator.example.com")
	testcert.Write(t, dir, first, firstKey)
	startProcess(t, kubeconfigFor("http://127.0.0.1:1"), "--metrics-bind-address="+addresses[metrics], "--metrics-cert-path="+dir,
		"--health-probe-bind-address="+addresses[probes], "--pprof-bind-address="+addresses[profiles])
	g.Eventually(func() int { return headers(t.Context(), "http://"+addresses[profiles]+profiles, 0) }).Should(gomega.Equal(http.StatusOK))

	for path, url := range map[string]string{
		metrics: "https://" + addresses[metrics], probes: "http://" + addresses[probes], profiles: "http://" + addresses[profiles],
	} {
		want := http.StatusOK
		if path == metrics {
			want = http.StatusUnauthorized
		}
		if got := headers(t.Context(), url+path, 1<<10); got != want {
			t.Errorf("%s with 1 KiB of headers: %d, want %d", path, got, want)
		}
		if got := headers(t.Context(), url+path, 40<<10); got != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("%s with 40 KiB of headers: %d", path, got)
		}
		if got := http2(t.Context(), addresses[path], path == metrics); !strings.HasPrefix(got, "HTTP/1.1 ") {
			t.Errorf("%s answers HTTP/2 by %q", path, got)
		}
	}

	served := func() []byte {
		c, err := (&tls.Dialer{Config: insecure("http/1.1")}).DialContext(t.Context(), "tcp", addresses[metrics])
		if err != nil {
			return nil
		}
		defer c.Close() //nolint:errcheck // nothing was sent
		tlsConn, _ := c.(*tls.Conn)
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: tlsConn.ConnectionState().PeerCertificates[0].Raw})
	}
	if !bytes.Equal(served(), first) {
		t.Error("the metrics have another certificate than the files")
	}
	second, secondKey := testcert.Pair(t, "operator.example.com")
	testcert.Write(t, dir, second, secondKey)
	g.Eventually(served).Should(gomega.Equal(second), "a pair that was replaced")
}

// insecure is for a client that takes any certificate and offers these protocols.
func insecure(protocols ...string) *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, NextProtos: protocols} //nolint:gosec // on a loopback address
}

// headers asks for a page with this many bytes of headers, on a connection of its own. It returns the status, or 0 without an answer.
func headers(ctx context.Context, url string, size int) int {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0
	}
	req.Header.Set("X-Long", strings.Repeat("x", size))
	res, err := (&http.Client{
		Transport: &http.Transport{TLSClientConfig: insecure(), DisableKeepAlives: true}, Timeout: 10 * time.Second,
	}).Do(req)
	if err != nil {
		return 0
	}
	_ = res.Body.Close()
	return res.StatusCode
}

// http2 begins to speak HTTP/2, over TLS or without. It returns the first line of the answer, or the protocol that TLS agreed on if that
// is HTTP/2.
func http2(ctx context.Context, address string, secure bool) string {
	var (
		c   net.Conn
		err error
	)
	if secure {
		c, err = (&tls.Dialer{Config: insecure("h2", "http/1.1")}).DialContext(ctx, "tcp", address)
	} else {
		c, err = (&net.Dialer{}).DialContext(ctx, "tcp", address)
	}
	if err != nil {
		return err.Error()
	}
	defer c.Close() //nolint:errcheck // nothing follows
	if over, ok := c.(*tls.Conn); ok && over.ConnectionState().NegotiatedProtocol != "http/1.1" {
		return over.ConnectionState().NegotiatedProtocol
	}
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	line, _ := bufio.NewReader(c).ReadString('\n')
	return line
}
