// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

const (
	appID  = "wx0123456789abcdef"
	secret = "0123456789abcdef0123456789abcdef"
)

// logs is a buffer for several goroutines.
type logs struct {
	mu sync.Mutex
	bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.Write(p)
}

// program is the program while it runs.
type program struct {
	ready
	stderr *logs
	// stop ends it and returns what it printed after the first line.
	stop func() string
}

func launch(t *testing.T, args ...string) program {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	p := program{stderr: &logs{}}
	reader, writer := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := run(ctx, args, writer, p.stderr)
		_ = writer.CloseWithError(err)
		ended <- err
	}()
	out := bufio.NewReader(reader)
	line, err := out.ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(line, &p.ready); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	p.stop = sync.OnceValue(func() string {
		cancel()
		rest, _ := io.ReadAll(out)
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("it ended with %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("it did not end")
		}
		return string(rest)
	})
	t.Cleanup(func() { p.stop() })
	return p
}

func newClient(t *testing.T, roots *x509.CertPool) *http.Client {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

func fetch(t *testing.T, client *http.Client, url, id, appSecret string) string {
	t.Helper()
	res, err := client.Get(url + "/cgi-bin/token?grant_type=client_credential&appid=" + id + "&secret=" + appSecret)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestRun(t *testing.T) {
	p := launch(t, "--app", appID+":"+secret, "--life", "10m", "--verbose")
	body := fetch(t, newClient(t, nil), p.URL, appID, secret)
	if !strings.Contains(body, `"expires_in":600`) {
		t.Errorf("a mint got %s", body)
	}
	fetch(t, newClient(t, nil), p.URL, secret, appID) // the two mixed up
	remote := wechattest.NewRemote(p.AdminURL)
	issued, err := remote.Tokens(t.Context(), appID)
	if err != nil || len(issued) != 1 {
		t.Fatalf("the admin side lists %v, %v", issued, err)
	}
	if rest := p.stop(); rest != "" {
		t.Errorf("more than a line was printed: %q", rest)
	}
	text := p.stderr.String()
	if strings.Count(text, "\n") != 2 || !strings.Contains(text, "appID="+appID) || !strings.Contains(text, "errcode=40013") {
		t.Errorf("the log of two calls is\n%s", text)
	}
	if strings.Contains(text, secret) || strings.Contains(text, issued[0].Token) {
		t.Errorf("the log holds an AppSecret or a token:\n%s", text)
	}
}

func TestRunWithoutAdmin(t *testing.T) {
	p := launch(t, "--auto-apps", "--admin-addr", "")
	if p.AdminURL != "" {
		t.Errorf("adminURL is %q", p.AdminURL)
	}
	if body := fetch(t, newClient(t, nil), p.URL, appID, secret); !strings.Contains(body, "access_token") {
		t.Errorf("a mint got %s", body)
	}
	p.stop()
	if got := p.stderr.String(); got != "" {
		t.Errorf("without --verbose it logged %q", got)
	}
}

func TestRunTLS(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ca.pem")
	const name = "fake-wechat.wechat.svc"
	p := launch(t, "--auto-apps", "--tls", "--tls-name", name, "--tls-ca-out", file)
	pem, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		t.Fatal("the file holds no certificate")
	}
	if p.CA != string(pem) {
		t.Errorf("the CA is said to be\n%s", p.CA)
	}
	client := newClient(t, pool)
	if body := fetch(t, client, p.URL, appID, secret); !strings.Contains(body, "access_token") {
		t.Errorf("a mint got %s", body)
	}
	client.Transport.(*http.Transport).TLSClientConfig.ServerName = name
	client.CloseIdleConnections()
	if body := fetch(t, client, p.URL, appID, secret); !strings.Contains(body, "access_token") {
		t.Errorf("a mint under another name got %s", body)
	}
}

func TestAnywhere(t *testing.T) {
	p := launch(t, "--auto-apps", "--addr", ":0", "--allow-non-loopback")
	if body := fetch(t, newClient(t, nil), p.URL, appID, secret); !strings.Contains(body, "access_token") {
		t.Errorf("a mint got %s", body)
	}
}

func TestRefusals(t *testing.T) {
	const hands = "hands out tokens to anybody"
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"--addr", ":8080"}, hands},
		{[]string{"--addr", "0.0.0.0:8080"}, hands},
		{[]string{"--addr", "[::]:8080"}, hands},
		{[]string{"--addr", "example.com:8080"}, "--allow-non-loopback"},
		{[]string{"--addr", "127.0.0.1"}, "--addr"},
		{[]string{"--admin-addr", ":0"}, hands},
		{[]string{"--admin-addr", ":0", "--allow-non-loopback"}, "--admin-addr"},
		{[]string{"--addr", "127.0.0.1:999999"}, "port"},
		{[]string{"--admin-addr", "127.0.0.1:999999"}, "--admin-addr"},
		{[]string{"--life", "0s"}, "--life"},
		{[]string{"--life", "1500ms"}, "--life"},
		{[]string{"--tls-ca-out", "ca.pem"}, "needs --tls"},
		{[]string{"--tls-name", "fake-wechat"}, "needs --tls"},
		{[]string{"--tls", "--tls-ca-out", "no/such/directory/ca.pem"}, "--tls-ca-out"},
		{[]string{"--app", "wx0123456789abcdef"}, "ID:SECRET"},
		{[]string{"--nothing"}, "nothing"},
		{[]string{"more"}, "no flag"},
	} {
		var stdout bytes.Buffer
		err := run(t.Context(), tc.args, &stdout, io.Discard)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%v: the error is %v, want %q", tc.args, err, tc.want)
		}
		if stdout.Len() > 0 {
			t.Errorf("%v: it printed %q", tc.args, stdout.String())
		}
	}
}

func TestLoopback(t *testing.T) {
	for addr, want := range map[string]bool{
		"127.0.0.1:0": true, "127.1.2.3:80": true, "[::1]:0": true, "localhost:0": true, "[::ffff:127.0.0.1]:0": true,
		":0": false, "0.0.0.0:0": false, "[::]:0": false, "192.0.2.1:0": false, "localhost": false, "": false,
	} {
		if got := isLoopback(addr); got != want {
			t.Errorf("isLoopback(%q) = %t", addr, got)
		}
	}
}
