// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"strings"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// maxExcerpt is the maximum length of an excerpt from an errmsg, in bytes.
const maxExcerpt = 120

var (
	// A rid consists of groups of hex digits. Text of any other form could be an AppSecret and is not shown.
	ridPattern = regexp.MustCompile(`\brid:? ?([0-9a-f]{1,16}(?:-[0-9a-f]{1,16}){1,4})\b`)
	addressRun = regexp.MustCompile(`[0-9A-Fa-f:.]{2,45}`)
)

// classify returns the error for an answer with an errcode, which alone determines class and reason. The error contains none of
// the secrets, even if errmsg quotes them.
func classify(a answer, codes []outcome, secrets []token.Value) *token.Error {
	e := &token.Error{Code: a.code, RequestID: requestID(a.errmsg, secrets)}
	for _, o := range codes {
		if o.code == a.code {
			e.Class, e.Reason, e.RetryAfter = o.class, o.reason, o.retryAfter
			e.Message = strings.ReplaceAll(o.what, "{address}", address(a.errmsg, secrets)) + " " + o.next
			return e
		}
	}
	e.Class, e.Reason = token.Transient, v1alpha1.ReasonRequestRejected
	e.Message = whatUnknown
	if said := excerpt(a.errmsg, secrets); said != "" {
		e.Message += fmt.Sprintf("; it said %q", said)
	}
	e.Message += ". " + nextUnknown
	return e
}

// requestID returns the rid in an errmsg, or "" if there is none.
func requestID(errmsg string, secrets []token.Value) string {
	found := ridPattern.FindStringSubmatch(errmsg)
	if found == nil || hide(found[1], secrets) != found[1] {
		return ""
	}
	return found[1]
}

// address returns the caller's address in an errmsg such as
// "invalid ip 203.0.113.7 ipv6 ::ffff:203.0.113.7, not in whitelist". If there is none it returns a general description.
func address(errmsg string, secrets []token.Value) string {
	for _, run := range addressRun.FindAllString(errmsg, 16) {
		for _, candidate := range []string{run, strings.TrimRight(run, ":.")} {
			// The zone of an address could be any text, but the pattern excludes it because it does not match a percent sign. The digits
			// are compared with the secrets, because an AppSecret has as many of them as an IPv6 address.
			ip, err := netip.ParseAddr(candidate)
			digits := strings.ReplaceAll(ip.StringExpanded(), ":", "")
			if err == nil && hide(digits, secrets) == digits {
				return ip.Unmap().String()
			}
		}
	}
	return "the operator's address"
}

// excerpt returns a safe excerpt from the errmsg of an unknown errcode. It removes unprintable characters before it hides secrets,
// because the removal could otherwise join the parts of a secret. It truncates last, because a truncated secret would not be found.
func excerpt(errmsg string, secrets []token.Value) string {
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
	words := strings.Fields(hide(printable, secrets))
	for i, word := range words {
		if tokenLike(word) {
			words[i] = token.Redacted
		}
	}
	clean := strings.Join(words, " ")
	if len(clean) > maxExcerpt {
		clean = clean[:maxExcerpt-3] + "..."
	}
	return clean
}

// tokenLike reports whether word may be an unknown token or AppSecret or a part of one. Ordinary words of an errmsg have fewer letters
// and digits. Punctuation does not count.
func tokenLike(word string) bool {
	run, _ := alphanumeric(strings.ReplaceAll(word, token.Redacted, ""))
	mixed := strings.ContainsAny(run, "0123456789") && strings.Trim(run, "0123456789") != ""
	return len(run) >= 24 || mixed && len(run) >= 12
}

// hide replaces the secrets and parts of them in text. It finds them as they are, escaped as in a URL, and quoted as in JSON.
func hide(text string, secrets []token.Value) string {
	for _, s := range secrets {
		value := s.Reveal()
		quoted, _ := json.Marshal(value) // never fails for a string
		forms := []string{value, url.QueryEscape(value), string(quoted[1 : len(quoted)-1])}
		for _, form := range forms {
			text = hideWhole(text, form)
		}
		for _, form := range forms {
			text = hideParts(text, form)
		}
	}
	return text
}

// hideWhole replaces exact copies of a secret, including the punctuation at its ends.
func hideWhole(text, secret string) string {
	if secret == "" {
		return text
	}
	return strings.ReplaceAll(text, secret, token.Redacted)
}

// hideParts replaces every run of text that contains 8 or more consecutive letters and digits of secret, ignoring case and punctuation.
// Shorter runs reveal nothing useful.
func hideParts(text, secret string) string {
	key, _ := alphanumeric(secret)
	size := min(8, len(key))
	if size == 0 {
		return text
	}
	parts := make(map[string]bool)
	for i := range len(key) - size + 1 {
		parts[key[i:i+size]] = true
	}
	shown, at := alphanumeric(text)
	var b strings.Builder
	end := 0 // end of the text that has been copied or replaced
	for i := range max(0, len(shown)-size+1) {
		if !parts[shown[i:i+size]] {
			continue
		}
		if at[i] >= end {
			b.WriteString(text[end:at[i]])
			b.WriteString(token.Redacted)
		}
		end = at[i+size-1] + 1
	}
	b.WriteString(text[end:])
	return b.String()
}

// alphanumeric returns the ASCII letters and digits of text in lower case, and the position of each in text.
func alphanumeric(text string) (run string, at []int) {
	var b strings.Builder
	for i := range len(text) {
		c := text[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if '0' <= c && c <= '9' || 'a' <= c && c <= 'z' {
			b.WriteByte(c)
			at = append(at, i)
		}
	}
	return b.String(), at
}
