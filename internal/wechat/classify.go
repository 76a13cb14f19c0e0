// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
)

const (
	// maxErrmsg is how much of an errmsg is looked at, maxExcerpt how much is shown, in bytes.
	maxErrmsg  = 4 << 10
	maxExcerpt = 120
)

var (
	// A rid has three groups of hex digits. Other forms are not shown: an AppSecret could be one.
	ridPattern = regexp.MustCompile(`\brid:? ?([0-9a-f]{1,16}(?:-[0-9a-f]{1,16}){1,4})\b`)
	addressRun = regexp.MustCompile(`[0-9A-Fa-f:.]{2,45}`)
	// No word of an errmsg is this long, but a part of a token or AppSecret may be.
	longRun = regexp.MustCompile(`[0-9A-Za-z+/=_%-]{24,}`)
)

// classify makes the error of an answer with an errcode, by that number alone. secrets must not be
// shown, whatever errmsg says.
func classify(a answer, codes []outcome, secrets []Secret) *Error {
	errmsg := a.errmsg[:min(len(a.errmsg), maxErrmsg)]
	e := &Error{Code: a.code, RequestID: requestID(errmsg, secrets)}
	for _, o := range codes {
		if o.code == a.code {
			e.Class, e.Reason, e.RetryAfter = o.class, o.reason, o.retryAfter
			e.Message = strings.ReplaceAll(o.what, "{address}", address(errmsg)) + " " + o.next
			return e
		}
	}
	e.Class, e.Reason = ClassTransient, ReasonRequestRejected
	e.Message = whatUnknown
	if said := excerpt(errmsg, secrets); said != "" {
		e.Message += fmt.Sprintf("; it said %q", said)
	}
	e.Message += ". " + nextUnknown
	return e
}

// requestID finds the rid in an errmsg.
func requestID(errmsg string, secrets []Secret) string {
	found := ridPattern.FindStringSubmatch(errmsg)
	if found == nil || hide(found[1], secrets) != found[1] {
		return ""
	}
	return found[1]
}

// address finds the caller's address in an errmsg such as
// "invalid ip 203.0.113.7 ipv6 ::ffff:203.0.113.7, not in whitelist".
func address(errmsg string) string {
	for _, run := range addressRun.FindAllString(errmsg, 16) {
		// A zone may be any text, but the pattern has no percent sign.
		ip, err := netip.ParseAddr(strings.TrimRight(run, ":."))
		if err == nil {
			return ip.Unmap().String()
		}
	}
	return "the operator's address"
}

// excerpt cleans an errmsg that no rule explains. The order counts: a value that is hidden first could
// come together again when characters are dropped.
func excerpt(errmsg string, secrets []Secret) string {
	errmsg = ridPattern.ReplaceAllString(errmsg, "")
	printable := strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\n' || r == '\r':
			return ' '
		case r < ' ' || r > '~':
			return -1
		}
		return r
	}, errmsg)
	clean := longRun.ReplaceAllString(hide(printable, secrets), redacted)
	clean = strings.Join(strings.Fields(clean), " ")
	if len(clean) > maxExcerpt {
		clean = clean[:maxExcerpt-3] + "..."
	}
	return clean
}

// hide removes secrets from a text, as they are and as they stand in a URL.
func hide(text string, secrets []Secret) string {
	for _, s := range secrets {
		if s.IsZero() {
			continue
		}
		text = strings.ReplaceAll(text, s.Reveal(), redacted)
		text = strings.ReplaceAll(text, url.QueryEscape(s.Reveal()), redacted)
	}
	return text
}
