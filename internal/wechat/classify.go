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

// maxExcerpt is how much of an errmsg is shown, in bytes.
const maxExcerpt = 120

var (
	// A rid has three groups of hex digits. Other forms are not shown: an AppSecret could be one.
	ridPattern = regexp.MustCompile(`\brid:? ?([0-9a-f]{1,16}(?:-[0-9a-f]{1,16}){1,4})\b`)
	addressRun = regexp.MustCompile(`[0-9A-Fa-f:.]{2,45}`)
)

// classify makes the error of an answer with an errcode, by that number alone. secrets must not be
// shown, whatever errmsg says.
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

// requestID finds the rid in an errmsg.
func requestID(errmsg string, secrets []token.Value) string {
	found := ridPattern.FindStringSubmatch(errmsg)
	if found == nil || hide(found[1], secrets) != found[1] {
		return ""
	}
	return found[1]
}

// address finds the caller's address in an errmsg such as
// "invalid ip 203.0.113.7 ipv6 ::ffff:203.0.113.7, not in whitelist".
func address(errmsg string, secrets []token.Value) string {
	for _, run := range addressRun.FindAllString(errmsg, 16) {
		for _, candidate := range []string{run, strings.TrimRight(run, ":.")} {
			// A zone could be any text, but the pattern has no percent sign. An AppSecret has as many
			// digits as an address.
			ip, err := netip.ParseAddr(candidate)
			digits := strings.ReplaceAll(ip.StringExpanded(), ":", "")
			if err == nil && hide(digits, secrets) == digits {
				return ip.Unmap().String()
			}
		}
	}
	return "the operator's address"
}

// excerpt cleans an errmsg that no rule explains. The order counts: a value that is hidden first could
// come together again when characters are dropped, and one that is cut first would not be found.
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

// tokenLike tells whether a word may be a token or AppSecret that we do not know, or a part of one, with punctuation in it or
// not: no word of an errmsg has so many letters and digits.
func tokenLike(word string) bool {
	run, _ := alphanumeric(strings.ReplaceAll(word, token.Redacted, ""))
	mixed := strings.ContainsAny(run, "0123456789") && strings.Trim(run, "0123456789") != ""
	return len(run) >= 24 || mixed && len(run) >= 12
}

// hide removes secrets and parts of them from a text, as they are and as they stand in a URL and in JSON.
func hide(text string, secrets []token.Value) string {
	for _, s := range secrets {
		value := s.Reveal()
		quoted, _ := json.Marshal(value) // a string, so it cannot fail
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

// hideWhole removes a secret as it is, with the punctuation at its ends.
func hideWhole(text, secret string) string {
	if secret == "" {
		return text
	}
	return strings.ReplaceAll(text, secret, token.Redacted)
}

// hideParts removes every run that has 8 or more letters and digits of secret in their order, in whatever case and with
// whatever punctuation between them; less gives nothing away.
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
	end := 0 // of what is written or hidden
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

// alphanumeric gives the ASCII letters and digits of a text in lower case, and where they stand.
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
