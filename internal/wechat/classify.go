// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// maxExcerpt is the maximum length of an excerpt from an errmsg, in characters.
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

// lasting reports whether a table says that the cause of an errcode does not pass by itself. Such an errcode says more than an HTTP
// status other than 200. Any other could be one of a gateway's own, and its status tells enough.
func lasting(code int, codes []outcome) bool {
	return slices.ContainsFunc(codes, func(o outcome) bool { return o.code == code && o.class != token.Transient })
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
	shown := strings.Map(showable, ridPattern.ReplaceAllString(errmsg, ""))
	words := strings.Fields(hide(shown, secrets))
	for i, word := range words {
		words[i] = hideTokens(word)
	}
	return cut(strings.Join(words, " "), maxExcerpt)
}

// showable maps the characters of an errmsg to what is shown: printable ASCII and Chinese. Full-width letters and digits become
// ASCII, so that a secret written in them is found. It returns -1 for all others, which could be invisible or look like ASCII.
func showable(r rune) rune {
	const toASCII = '\uff01' - '!'
	switch {
	case r == '\t', r == '\n', r == '\r', r == '\u3000':
		return ' '
	case ' ' <= r && r <= '~', chinese(r):
		return r
	case '０' <= r && r <= '９', 'Ａ' <= r && r <= 'Ｚ', 'ａ' <= r && r <= 'ｚ':
		return r - toASCII
	}
	return -1
}

func chinese(r rune) bool {
	return unicode.Is(unicode.Han, r) || strings.ContainsRune("、。，：；！？（）「」『』《》〈〉【】“”‘’…—·", r)
}

// hideTokens replaces what may be a token in a word. Chinese has no spaces between words, so each part between Chinese characters is a
// word of its own.
func hideTokens(word string) string {
	var b strings.Builder
	for word != "" {
		n := strings.IndexFunc(word, chinese)
		if n < 0 {
			n = len(word)
		}
		if part := word[:n]; tokenLike(part) {
			b.WriteString(token.Redacted)
		} else {
			b.WriteString(part)
		}
		_, size := utf8.DecodeRuneInString(word[n:])
		b.WriteString(word[n : n+size])
		word = word[n+size:]
	}
	return b.String()
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
