// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/gateway"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

const (
	appID     = "wx0123456789abcdef"
	appSecret = "0123456789abcdef0123456789abcdee" //nolint:gosec // of the stand-in
	clientUID = types.UID("0f2d1c3b-0000-4000-8000-000000000001")
	// overlap is how long the key before a rotation goes on buying tokens.
	overlap = 24 * time.Hour
	// storeLag is how long after WeChat's change the operator has the new token in the store.
	storeLag = time.Second
)

// world is a stand-in for WeChat, a gateway whose store the test keeps in the operator's place, and the folder where a client's key is
// mounted. All use the stand-in's clock.
type world struct {
	*testing.T

	wechat *wechattest.Server
	store  *store
	// dir has the sockets, and volume the files of the key Secret.
	dir, volume string
	leaks       *leaks

	mu sync.Mutex
	// denials has how often the gateway answered in WeChat's place with an error, by its reason.
	denials map[string]int
}

// store is what the gateway's caches would hold.
type store struct {
	mu       sync.Mutex
	policy   *gateway.Policy
	replaced chan struct{}

	account gateway.Account
	keys    []gateway.Key
}

// Policy implements gateway.Source.
func (s *store) Policy() (*gateway.Policy, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.policy, s.replaced
}

// change changes the store and publishes the result.
func (s *store) change(what func(*store)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	what(s)
	account := s.account
	name := types.NamespacedName{Namespace: "shop", Name: "sdk"}
	s.policy = gateway.NewPolicy([]*gateway.Client{{
		UID: clientUID, Name: name, Keys: append([]gateway.Key(nil), s.keys...), Login: true, Account: &account,
		Paths: []string{"/cgi-bin/*", "/wxa/*"}, Rate: v1alpha1.RateLimit{RequestsPerSecond: 10000, Burst: 10000},
	}})
	close(s.replaced)
	s.replaced = make(chan struct{})
}

// newWorld starts them. With certificate, the gateway serves HTTPS with it.
func newWorld(t *testing.T, host string, certificate *tls.Certificate) *world {
	t.Helper()
	wechat, err := wechattest.NewServer(wechattest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(wechat.Close)
	wechat.SetApp(wechattest.App{ID: appID, Secret: appSecret})
	w := &world{
		T: t, wechat: wechat, dir: shortDir(t), volume: t.TempDir(), leaks: &leaks{},
		store: &store{replaced: make(chan struct{})}, denials: map[string]int{},
	}
	w.leaks.add(appSecret)
	w.store.account = gateway.Account{
		Name: types.NamespacedName{Namespace: "shop", Name: "shop"}, AppID: appID, AppSecret: token.NewValue(appSecret),
		TicketTypes: []v1alpha1.TicketType{"jsapi"},
	}
	w.take(wechat.RivalForceRefresh(appID))
	ticket := wechat.RivalTicket(appID, "jsapi", 0)
	w.store.change(func(s *store) {
		s.account.Tickets = map[v1alpha1.TicketType]gateway.Ticket{
			"jsapi": {Value: token.NewValue(ticket.Ticket), ExpiresAt: wechat.Now().Add(2 * time.Hour)},
		}
	})
	w.rotateKey()
	w.write("host", host)
	w.write("app_id", appID)
	w.serve(certificate)
	return w
}

// shortDir returns a folder whose path is short enough for the address of a Unix socket.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "gw") //nolint:usetesting // its names are too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// serve starts the gateway on the socket that the sandbox joins.
func (w *world) serve(certificate *tls.Certificate) {
	w.Helper()
	relay, err := gateway.NewRelay(gateway.RelayOptions{Endpoints: []string{w.wechat.URL()}, Source: w.store, Now: w.wechat.Now})
	if err != nil {
		w.Fatal(err)
	}
	handler := gateway.New(gateway.Options{Source: w.store, Relay: relay, Now: w.wechat.Now, Record: w.record})
	l, err := net.Listen("unix", filepath.Join(w.dir, toGateway))
	if err != nil {
		w.Fatal(err)
	}
	if certificate != nil {
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{*certificate}, MinVersion: tls.VersionTLS12})
	}
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0),
		DisableGeneralOptionsHandler: true,
	}
	w.Cleanup(func() { _ = server.Close() })
	go func() { _ = server.Serve(watched{l, w.leaks}) }()
}

func (w *world) record(c *gateway.Call) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.Outcome != gateway.OutcomeAnswered && c.Outcome != gateway.OutcomeRelayed {
		w.denials[c.Reason]++
	}
}

// take puts a token of WeChat's into the store.
func (w *world) take(issued wechattest.IssuedToken) {
	w.leaks.add(issued.Token)
	w.store.change(func(s *store) {
		s.account.Token, s.account.ExpiresAt = token.NewValue(issued.Token), issued.ExpiresAt
	})
}

// rotateToken replaces the token as the operator does, in time: the old one is good for some minutes more.
func (w *world) rotateToken() { w.take(w.wechat.RivalForceRefresh(appID)) }

// loseToken has a rival force two tokens in a row, so that the one in the store is dead at once. The store follows a little later.
func (w *world) loseToken() (followed <-chan struct{}) {
	w.leaks.add(w.wechat.RivalForceRefresh(appID).Token)
	rivals := w.wechat.RivalForceRefresh(appID)
	w.leaks.add(rivals.Token)
	done := make(chan struct{})
	time.AfterFunc(storeLag, func() {
		defer close(done)
		w.take(rivals)
	})
	return done
}

// rotateKey makes a new key, keeps the one before for overlap, and mounts both. Programs see the files when they start.
func (w *world) rotateKey() {
	w.Helper()
	raw := make([]byte, 16)
	_, _ = rand.Read(raw)
	value := token.NewValue(hex.EncodeToString(raw))
	now := w.wechat.Now()
	w.store.change(func(s *store) {
		if len(s.keys) > 0 {
			s.keys = s.keys[:1]
			s.keys[0].BuysUntil = now.Add(overlap)
		}
		s.keys = append([]gateway.Key{gateway.NewKey(value, time.Time{})}, s.keys...)
	})
	w.write("app_secret", value.Reveal())
}

// endOfKey removes the key before, as the store does when tokens that were bought with it have expired.
func (w *world) endOfKey() { w.store.change(func(s *store) { s.keys = s.keys[:1] }) }

func (w *world) write(name, value string) {
	w.Helper()
	if err := os.WriteFile(filepath.Join(w.volume, name), []byte(value), 0o600); err != nil {
		w.Fatal(err)
	}
}

// program is an SDK's program that runs in a sandbox.
type program struct {
	*sandbox

	client http.Client
	failed int
	errors []string
}

// start starts a program with the files that are mounted now.
func (w *world) start(workDir string, command []string, env ...string) *program {
	w.Helper()
	_ = os.Remove(filepath.Join(w.dir, toProgram))
	p := &program{sandbox: startSandbox(w.T, w.dir, workDir, append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + w.dir, "WECHAT_DIR=" + w.volume, "LISTEN=127.0.0.1:0", "HOST=127.0.0.1", "PORT=0",
	}, env...), command)}
	p.client = http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(w.dir, toProgram))
		},
		MaxIdleConnsPerHost: 16,
	}}
	return p
}

// get has the program make a call. It returns the answer, or an error with what the program says.
func (p *program) get(path string) (map[string]any, error) {
	response, err := p.client.Get("http://program" + path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	answer := map[string]any{}
	if response.StatusCode != http.StatusOK || json.Unmarshal(body, &answer) != nil {
		return nil, fmt.Errorf("%s: %s: %s", path, response.Status, body)
	}
	return answer, nil
}

// try makes a call and counts it if it fails.
func (p *program) try(path string) {
	if _, err := p.get(path); err != nil {
		p.failed++
		if len(p.errors) < 5 {
			p.errors = append(p.errors, err.Error())
		}
	}
}

// login has the program log a user in with a fresh code.
func (w *world) login(p *program) {
	code := w.wechat.NewCode(appID, wechattest.CodeMiniProgram, "")
	p.try("/login?code=" + url.QueryEscape(code.Code))
}

// leaks looks for secrets in what callers receive and send.
type leaks struct {
	mu      sync.Mutex
	secrets [][]byte
	found   int
	// bytes is how much was looked at.
	bytes int
}

func (l *leaks) add(secret string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.secrets = append(l.secrets, []byte(secret))
}

// look looks at what came, with the end of what came before, and returns the end to keep.
func (l *leaks) look(before, came []byte) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bytes += len(came)
	all := append(before, came...)
	for _, s := range l.secrets {
		l.found += bytes.Count(all, s) - bytes.Count(before, s)
	}
	return append([]byte(nil), all[max(0, len(all)-512):]...)
}

// watched is a listener whose connections are searched for secrets.
type watched struct {
	net.Listener

	leaks *leaks
}

// Accept implements net.Listener.
func (l watched) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &watchedConn{Conn: c, leaks: l.leaks}, nil
}

type watchedConn struct {
	net.Conn

	leaks   *leaks
	in, out []byte
}

func (c *watchedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.in = c.leaks.look(c.in, b[:n])
	return n, err
}

func (c *watchedConn) Write(b []byte) (int, error) {
	c.out = c.leaks.look(c.out, b)
	return c.Conn.Write(b)
}

// privateCA returns the certificate of a CA in PEM, and one that it signed for a name.
func privateCA(t *testing.T, name string) (ca []byte, certificate tls.Certificate) {
	t.Helper()
	newKey := func() *ecdsa.PrivateKey {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "private CA"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		PermittedDNSDomainsCritical: true, PermittedDNSDomains: []string{name},
	}
	caKey, key := newKey(), newKey()
	signed, err := x509.CreateCertificate(rand.Reader, authority, authority, caKey.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, authority, key.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed}), tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
