// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// sign returns a certificate that is signed by an authority, or by itself if there is none.
func sign(t *testing.T, by *authority, edit func(*x509.Certificate)) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "WeChat"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	edit(template)
	parent, parentKey := template, key
	if by != nil {
		parent, parentKey = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert: cert, key: key}
}

func newAuthority(t *testing.T, name string, edits ...func(*x509.Certificate)) *authority {
	t.Helper()
	return sign(t, nil, func(c *x509.Certificate) {
		c.Subject, c.IsCA, c.BasicConstraintsValid, c.KeyUsage = pkix.Name{CommonName: name}, true, true, x509.KeyUsageCertSign
		c.ExtKeyUsage, c.IPAddresses = nil, nil
		for _, edit := range edits {
			edit(c)
		}
	})
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// serveAs starts an HTTPS server with a certificate, or with none if a is nil.
func serveAs(t *testing.T, a *authority) *server {
	t.Helper()
	config := &tls.Config{}
	if a != nil {
		config.Certificates = []tls.Certificate{{Certificate: [][]byte{a.cert.Raw}, PrivateKey: a.key}}
	}
	s := &server{}
	ts := httptest.NewUnstartedServer(s.counted(answering))
	ts.Config.ErrorLog = log.New(io.Discard, "", 0)
	ts.Listener = tls.NewListener(ts.Listener, config)
	ts.Start()
	t.Cleanup(ts.Close)
	s.URL = strings.Replace(ts.URL, "http:", "https:", 1)
	return s
}

// The message tells what is wrong with a certificate and whose it is. Only an unknown certificate authority makes it mention the option to
// trust one, and then with a warning.
func TestCertificateProblems(t *testing.T) {
	ours, strangers := newAuthority(t, "Our Proxy CA"), newAuthority(t, "Friendly CA, trust me\n\x1b[31m\u202e\"`")
	old := newAuthority(t, "Old CA", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	same := func(*x509.Certificate) {}
	other := func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"*.apps.example.com"} }
	expired := func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }
	both := func(c *x509.Certificate) { other(c); expired(c) }
	const advice, clock, stray = "--wechat-ca-file", "The operator's clock says 20", "Do not trust that server."
	for name, tt := range map[string]struct {
		by     *authority
		edit   func(*x509.Certificate)
		none   bool
		says   []string
		advice bool // it may say how to trust a certificate authority
	}{
		"other name":              {by: ours, edit: other, says: []string{"that of another host, *.apps.example.com.", stray, "search domain"}},
		"other name, unknown CA":  {by: strangers, edit: other, says: []string{"that of another host, *.apps.example.com.", stray}},
		"other name, self-signed": {edit: other, says: []string{"that of another host", stray}},
		"other name, expired":     {by: ours, edit: both, says: []string{"that of another host", stray}},
		"other name, all wrong":   {by: strangers, edit: both, says: []string{"that of another host", stray}},
		"no name": {by: ours, edit: func(c *x509.Certificate) { c.IPAddresses, c.Subject.CommonName = nil, "127.0.0.1" },
			says: []string{"its certificate names no host", stray}},
		"many names": {by: ours, edit: func(c *x509.Certificate) {
			other(c)
			for i := range 99 {
				c.DNSNames = append(c.DNSNames, fmt.Sprintf("%d.example.com", i))
			}
		}, says: []string{"*.apps.example.com, 0.example.com, 1.example.com and 97 more."}},
		"another address": {by: ours, edit: func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(203, 0, 113, 7)} },
			says: []string{"that of another host, 203.0.113.7.", stray}},
		"a name that says a secret": {by: ours, edit: func(c *x509.Certificate) { other(c); c.DNSNames = []string{"x." + appSecret + ".example.com"} },
			says: []string{"that of another host", token.Redacted}},
		"a long name": {by: ours, edit: func(c *x509.Certificate) { other(c); c.DNSNames = []string{strings.Repeat("a.\r\n", 5000)} },
			says: []string{"a.??a.??", "..."}},

		"expired":             {by: ours, edit: expired, says: []string{"its certificate expired at 20", clock}},
		"expired, unknown CA": {by: strangers, edit: expired, says: []string{"its certificate expired at 20", clock}},
		"not yet valid": {by: ours, edit: func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) },
			says: []string{"its certificate is not yet valid", clock, "set the clock of its node"}},

		"unknown CA": {by: strangers, edit: same, advice: true,
			says: []string{"is not trusted", `"Friendly CA, trust me?` + "??31m?", "unknown", "do not trust it"}},
		"self-signed":          {edit: same, advice: true, says: []string{"is not trusted", `"WeChat" is unknown`, "do not trust it"}},
		"a CA of that name":    {by: newAuthority(t, "Our Proxy CA"), edit: same, advice: true, says: []string{`"Our Proxy CA" is unknown`, "do not trust it"}},
		"CA without a name":    {by: newAuthority(t, ""), edit: same, advice: true, says: []string{`"" is unknown`}},
		"a CA that says a key": {by: newAuthority(t, appSecret), edit: same, advice: true, says: []string{token.Redacted}},
		"expired CA": {by: old, edit: same, advice: true,
			says: []string{"the certificate of its certificate authority expired, or is not valid yet", clock, "successor"}},

		"for clients": {by: ours, edit: func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} },
			says: []string{"its certificate is not one for servers"}},
		"critical extension": {by: ours, edit: func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3, 4}, Critical: true, Value: []byte("x")}}
		}, says: []string{"its certificate is not valid"}},
		"none": {none: true, says: []string{"it has no certificate"}},
	} {
		t.Run(name, func(t *testing.T) {
			var s *server
			if tt.none {
				s = serveAs(t, nil)
			} else {
				s = serveAs(t, sign(t, tt.by, tt.edit))
			}
			ca := writeFile(t, append(ours.pem(), old.pem()...))
			for _, call := range allCalls {
				_, err := call.do(t.Context(), newClient(t, Options{Endpoints: []string{s.URL}, CAFile: ca}))
				e := wantError(t, err, token.Transient, v1alpha1.ReasonUnreachable, 0)
				wantText(t, e, append(tt.says, "No answer from 127.0.0.1:")...)
				if strings.Contains(e.Message, advice) != tt.advice {
					t.Errorf("%s: how to trust it is said: %v", call.name, e.Message)
				}
				if strings.ContainsAny(e.Message, "\n\r\x1b\u202e") || len(e.Message) > 700 {
					t.Errorf("%s: %q", call.name, e.Message)
				}
				if e.MaybeSent {
					t.Errorf("%s: MaybeSent is true", call.name)
				}
			}
			s.wantHits(t, 0)
		})
	}
}

// What crypto/tls and crypto/x509 say in ways that a test cannot make a server cause.
func TestCertificateErrors(t *testing.T) {
	c := newClient(t, Options{})
	leaf := sign(t, nil, func(c *x509.Certificate) { c.DNSNames = []string{"api.weixin.qq.com"} }).cert
	verification := func(err error) error {
		return &tls.CertificateVerificationError{UnverifiedCertificates: []*x509.Certificate{leaf}, Err: err}
	}
	for _, tt := range []struct {
		err  error
		says string
	}{
		{errors.New("tls: received empty certificates message"), "it has no certificate."},
		{errors.New("tls: failed to parse certificate from server: x509: malformed"), "its certificate is not valid."},
		{errors.New("tls: invalid signature by the server certificate: ECDSA"), "its certificate is not valid."},
		{verification(x509.SystemRootsError{}), "the operator has no certificate authorities of its system"},
		{verification(x509.ConstraintViolationError{}), "its certificate is not valid."},
		{verification(x509.CertificateInvalidError{Cert: leaf, Reason: x509.TooManyIntermediates}), "its certificate is not valid."},
		{verification(errors.New("else")), "its certificate is not valid."},
		{&net.OpError{Op: "proxyconnect", Err: verification(x509.UnknownAuthorityError{})}, "the proxy was not reached: its certificate is not trusted"},
		{&net.OpError{Op: "proxyconnect", Err: verification(x509.HostnameError{Certificate: leaf, Host: "proxy.example.com"})},
			"the proxy was not reached: its certificate is that of another host, api.weixin.qq.com, 127.0.0.1."},
	} {
		if e := c.unreachable(0, tt.err, nil); !strings.Contains(e.Message, tt.says) || e.Cause != nil {
			t.Errorf("%v: %s with cause %v, want %q", tt.err, e.Message, e.Cause, tt.says)
		}
	}
}

// A proxy that is reached by TLS has a certificate, too.
func TestCertificateOfTheProxy(t *testing.T) {
	ours := newAuthority(t, "Our Proxy CA")
	proxy := serveAs(t, sign(t, ours, func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"ingress.local"} }))
	u, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, Options{Endpoints: []string{"https://" + proxiedHost}, CAFile: writeFile(t, ours.pem())})
	c.network.Load().shared.large.(*http.Transport).Proxy = http.ProxyURL(u)
	_, err = c.StableToken(t.Context(), testAccount, false)
	e := wantError(t, err, token.Transient, v1alpha1.ReasonUnreachable, 0)
	wantText(t, e, "the proxy was not reached: its certificate is that of another host, ingress.local.")
}
