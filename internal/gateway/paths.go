// SPDX-License-Identifier: Apache-2.0

package gateway

import "strings"

// Paths of WeChat's API that the gateway answers itself or treats in a way of their own.
const (
	pathToken       = "/cgi-bin/token"
	pathStableToken = "/cgi-bin/stable_token"
	pathTicket      = "/cgi-bin/ticket/getticket"
)

// Kind says how a call is answered.
type Kind string

const (
	// KindToken is answered with a token of the gateway.
	KindToken Kind = "token"
	// KindTicket is answered with a ticket of the store, if the client's paths allow it.
	KindTicket Kind = "ticket"
	// KindLogin carries the AppSecret, which takes the place of the client's key.
	KindLogin Kind = "login"
	// KindUser carries the access_token of a user, which is none of the gateway's.
	KindUser Kind = "user"
	// KindForbidden is never passed on, whatever a client's paths say.
	KindForbidden Kind = "forbidden"
	// KindRelay is passed on with the real token if the client's paths allow it.
	KindRelay Kind = "relay"
)

// KindOf returns how calls of a path are answered. WeChat may read paths without regard to case, so the gateway compares them so.
func KindOf(path string) Kind {
	p := strings.ToLower(path)
	switch p {
	case pathToken, pathStableToken:
		return KindToken
	case pathTicket:
		return KindTicket
	case "/sns/jscode2session", "/sns/oauth2/access_token", "/sns/oauth2/refresh_token":
		return KindLogin
	case "/sns/userinfo", "/sns/auth":
		return KindUser
	}
	for _, prefix := range [...]string{pathToken, pathStableToken, pathTicket, "/cgi-bin/openapi", "/cgi-bin/component", "/sns"} {
		if p == prefix || strings.HasPrefix(p, prefix+"/") {
			return KindForbidden
		}
	}
	if strings.Contains(p, "clear_quota") {
		return KindForbidden
	}
	return KindRelay
}

// PathAllowed reports whether a pattern of a client's spec allows a path. A pattern is a whole path; a "*" as its last segment stands for
// one or more segments.
func PathAllowed(pattern, path string) bool {
	prefix, wild := strings.CutSuffix(pattern, "/*")
	if !wild {
		return path == pattern
	}
	rest, ok := strings.CutPrefix(path, prefix+"/")
	return ok && rest != ""
}
