// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"time"
	"unicode"

	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

const (
	maxNames     = 3   // of a certificate that are shown
	maxNameRunes = 64  // of each of them
	maxProblem   = 160 // runes of what is wrong with a file, which has the file's name
)

// certificateProblem is what is wrong with the certificate of a server or proxy, and what to do. No advice may lead anybody to trust a
// server that only claims to be WeChat, so only an unknown certificate authority mentions the option to trust one.
type certificateProblem struct{ what, next string }

const (
	nextClock = "The operator's clock says %s. If that is wrong, set the clock of its node. " +
		"If it is right, the server, or the proxy in between, needs a new certificate."
	nextReplace = "The server, or a proxy that answers in its place, needs another certificate."
	nextStray   = "Do not trust that server. Look for what leads to it: DNS, such as a search domain with a wildcard record, " +
		"host aliases, or a proxy."
	nextUnknownCA = "If you run a proxy that inspects TLS, get its certificate authority from those who run it and put it into " +
		"--wechat-ca-file. If you do not, somebody else answers in WeChat's place: do not trust it."
)

// certificateProblem returns what is wrong with a certificate, and false if err is about something else. What it quotes of the certificate
// is short and has no unusual characters, but anybody may have chosen it.
func (c *Client) certificateProblem(endpoint int, err error) (certificateProblem, bool) {
	var invalid *tls.CertificateVerificationError
	if !errors.As(err, &invalid) {
		return noCertificate(err)
	}
	wanted := c.endpoints[endpoint].Hostname()
	if isProxyConnect(err) {
		wanted = "" // it is the proxy's certificate
	}
	p := certificateProblemAt(invalid, wanted, time.Now())
	if errors.As(err, new(x509.UnknownAuthorityError)) {
		problem := c.caProblem()
		switch {
		case c.trust.options.CAFile == "" && noSystemRoots():
			return noAuthorities, true
		case problem != nil:
			p.next += fmt.Sprintf(" --wechat-ca-file could not be read again, so the certificates that it held before are in use: %s.",
				cut(problem.Error(), maxProblem))
		}
	}
	return p, true
}

// certificateProblemAt returns what is wrong with a certificate at a time. The name that is wanted is "" if it is not known.
func certificateProblemAt(invalid *tls.CertificateVerificationError, wanted string, now time.Time) certificateProblem {
	var name x509.HostnameError
	var authority x509.UnknownAuthorityError
	var other x509.CertificateInvalidError
	var leaf *x509.Certificate
	if certs := invalid.UnverifiedCertificates; len(certs) > 0 {
		leaf = certs[0]
	}
	switch {
	case errors.As(invalid.Err, &name):
		return otherName(name.Certificate)
	case wanted != "" && leaf != nil && leaf.VerifyHostname(wanted) != nil:
		return otherName(leaf) // crypto/x509 looks at the time first, but the name tells more
	case errors.As(invalid.Err, &other) && other.Reason == x509.Expired:
		return wrongTime(other.Cert, leaf, now)
	case errors.As(invalid.Err, new(x509.SystemRootsError)):
		return noAuthorities
	case errors.As(invalid.Err, &authority) && strings.HasPrefix(authority.Error(), expiredAuthority):
		return wrongTime(nil, leaf, now)
	case errors.As(invalid.Err, &authority):
		return certificateProblem{fmt.Sprintf("its certificate is not trusted, because its certificate authority %q is unknown",
			issuer(authority.Cert)), nextUnknownCA}
	case errors.As(invalid.Err, &other) && other.Reason == x509.IncompatibleUsage:
		return certificateProblem{"its certificate is not one for servers", nextReplace}
	}
	return certificateProblem{"its certificate is not valid", nextReplace}
}

// wrongTime returns the problem of a certificate that is not valid at a time: that of the server, which is the leaf, or that of its
// certificate authority, which may not be known.
func wrongTime(c, leaf *x509.Certificate, now time.Time) certificateProblem {
	clock := fmt.Sprintf(nextClock, now.UTC().Format(time.RFC3339))
	switch {
	case c == nil || !c.Equal(leaf):
		return certificateProblem{"the certificate of its certificate authority expired, or is not valid yet",
			clock + " If you put that authority into --wechat-ca-file yourself, replace it by its successor."}
	case now.Before(c.NotBefore):
		return certificateProblem{"its certificate is not yet valid, but from " + c.NotBefore.UTC().Format(time.RFC3339) + " on", clock}
	}
	return certificateProblem{"its certificate expired at " + c.NotAfter.UTC().Format(time.RFC3339), clock}
}

// noAuthorities is the problem of an operator that cannot check any certificate.
var noAuthorities = certificateProblem{"the operator has no certificate authorities of its system to check the certificate with",
	"Use the operator's own image, or one with CA certificates."}

// expiredAuthority is the beginning of the text by which crypto/x509 tells that it found the certificate authority, but at the wrong time.
const expiredAuthority = "x509: certificate signed by unknown authority " +
	`(possibly because of "x509: certificate has expired or is not yet valid`

// noSystemRoots reports whether the system has no certificate authorities.
func noSystemRoots() bool {
	pool, err := x509.SystemCertPool()
	return err != nil || pool.Equal(x509.NewCertPool())
}

func otherName(c *x509.Certificate) certificateProblem {
	what := "its certificate names no host"
	names := append([]string(nil), c.DNSNames...)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) > 0 {
		more := ""
		if n := len(names) - maxNames; n > 0 {
			names, more = names[:maxNames], fmt.Sprintf(" and %d more", n)
		}
		for i := range names {
			names[i] = shown(names[i])
		}
		what = "its certificate is that of another host, " + strings.Join(names, ", ") + more
	}
	return certificateProblem{what, nextStray}
}

// issuer returns the name of a certificate's issuer.
func issuer(c *x509.Certificate) string {
	if c == nil {
		return ""
	}
	if name := c.Issuer.CommonName; name != "" {
		return shown(name)
	}
	return shown(strings.Join(c.Issuer.Organization, ", "))
}

// longWord finds words that may be secrets, see tokenLike.
var longWord = regexp.MustCompile(`[0-9A-Za-z]{12,}`)

// shown returns the beginning of a name of a certificate. It replaces characters that no such name needs by question marks, and hides words
// that may be secrets, because anybody may have chosen the name.
func shown(name string) string {
	runes := []rune(strings.ToValidUTF8(name, "?"))
	for i, r := range runes {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune(" .,:*_-()&'", r) {
			runes[i] = '?'
		}
	}
	runes = []rune(longWord.ReplaceAllStringFunc(string(runes), func(word string) string {
		if tokenLike(word) {
			return token.Redacted
		}
		return word
	}))
	return cut(string(runes), maxNameRunes)
}

// cut returns the beginning of a text, and says so if there is more.
func cut(text string, limit int) string {
	if runes := []rune(text); len(runes) > limit {
		return string(runes[:limit-3]) + "..."
	}
	return text
}

// noCertificate returns the problem of a server without a certificate that can be read at all. crypto/tls has no types for these errors.
func noCertificate(err error) (certificateProblem, bool) {
	op, ok := errors.AsType[*net.OpError](err)
	switch text := err.Error(); {
	case strings.Contains(text, "tls: received empty certificates message"),
		strings.Contains(text, "tls: received unexpected handshake message of type *tls.certificateMsg when waiting for *tls.certificateMsg"):
		return certificateProblem{"it has no certificate", nextReplace}, true
	case ok && op.Op == "remote error" && op.Err.Error() == "tls: unrecognized name":
		return certificateProblem{"it has no certificate for this name", nextStray}, true
	case strings.Contains(text, "tls: failed to parse certificate from server"),
		strings.Contains(text, "tls: invalid signature by the server certificate"):
		return certificateProblem{"its certificate is not valid", nextReplace}, true
	}
	return certificateProblem{}, false
}
