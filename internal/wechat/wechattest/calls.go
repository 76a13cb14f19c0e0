// SPDX-License-Identifier: Apache-2.0

package wechattest

import (
	"slices"
	"time"
)

// keptCalls is the number of calls that are kept. The counters include older ones.
const keptCalls = 200_000

// Endpoint is the last part of the path of an interface.
type Endpoint string

// The interfaces that the server implements. A call to another path is answered with HTTP status 404 and recorded with an empty
// Endpoint.
const (
	EndpointStable     Endpoint = "stable_token"
	EndpointLegacy     Endpoint = "token"
	EndpointProbe      Endpoint = "get_api_domain_ip"
	EndpointCode       Endpoint = "getwxacodeunlimit"
	EndpointTicket     Endpoint = "getticket"
	EndpointCallbackIP Endpoint = "getcallbackip"
	EndpointPageCode   Endpoint = "getwxacode"
	EndpointMessage    Endpoint = "send"
	EndpointUpload     Endpoint = "upload"
	// EndpointLogin logs in a user of a mini program, and EndpointWebLogin one of a web page.
	EndpointLogin       Endpoint = "jscode2session"
	EndpointWebLogin    Endpoint = "access_token"
	EndpointUserRefresh Endpoint = "refresh_token"
	// EndpointUserInfo and EndpointUserAuth take the token of a user.
	EndpointUserInfo Endpoint = "userinfo"
	EndpointUserAuth Endpoint = "auth"
)

// Call is a recorded request. It is recorded as soon as the request has been read. Fields that are known only later are set before the
// client receives its answer.
type Call struct {
	// At is when the request was received by the local clock. Clock is the same time by the server's.
	At       time.Time `json:"at"`
	Clock    time.Time `json:"clock"`
	Endpoint Endpoint  `json:"endpoint,omitempty"`
	// AppID is the appid in the request or that of its token. It is empty if neither is known.
	AppID string `json:"appID,omitempty"`
	// Errcode and HTTPStatus are those of the answer. HTTPStatus is 0 if no answer was sent.
	Errcode    int `json:"errcode,omitempty"`
	HTTPStatus int `json:"httpStatus,omitempty"`
	// Forced reports whether the call asked for a forced refresh.
	Forced bool `json:"forced,omitempty"`
	// Fault reports whether an injected fault was applied to the call.
	Fault bool `json:"fault,omitempty"`
	// Minted reports whether the call made the server issue a new token.
	Minted     bool   `json:"minted,omitempty"`
	RemoteAddr string `json:"remoteAddr,omitempty"`
	// Finished reports whether the whole answer was written to the connection.
	Finished bool `json:"finished,omitempty"`
}

// Filter selects calls. An empty field selects all.
type Filter struct {
	AppID    string   `json:"appID,omitempty"`
	Endpoint Endpoint `json:"endpoint,omitempty"`
	// Since is the earliest Call.At.
	Since time.Time `json:"since,omitzero"`
}

func (f Filter) matches(c *Call) bool {
	return (f.AppID == "" || f.AppID == c.AppID) && (f.Endpoint == "" || f.Endpoint == c.Endpoint)
}

// callLog holds the newest calls in a ring buffer, and counts all of them.
type callLog struct {
	ring []Call
	// next is the number of the next call. Call n is at index n modulo keptCalls.
	next   int
	counts map[countKey]int
}

type countKey struct {
	appID    string
	endpoint Endpoint
}

func newCallLog() callLog { return callLog{counts: make(map[countKey]int)} }

// add records a call and returns its number.
func (l *callLog) add(c Call) int {
	n := l.next
	l.next++
	if len(l.ring) < keptCalls {
		l.ring = append(l.ring, c)
	} else {
		l.ring[n%keptCalls] = c
	}
	l.counts[countKey{}]++
	if c.AppID != "" {
		l.counts[countKey{appID: c.AppID}]++
	}
	if c.Endpoint != "" {
		l.counts[countKey{endpoint: c.Endpoint}]++
	}
	if c.AppID != "" && c.Endpoint != "" {
		l.counts[countKey{c.AppID, c.Endpoint}]++
	}
	return n
}

// each calls visit for the kept calls that f selects, beginning with the newest.
func (l *callLog) each(f Filter, visit func(*Call)) {
	for n := l.next - 1; n >= l.next-len(l.ring); n-- {
		c := &l.ring[n%keptCalls]
		if c.At.Before(f.Since) {
			return // all remaining calls are older
		}
		if f.matches(c) {
			visit(c)
		}
	}
}

// update applies change to a call and returns the result. It returns the zero Call if the call is no longer kept.
func (s *Server) update(n int, change func(*Call)) Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls.update(n, change)
}

func (l *callLog) update(n int, change func(*Call)) Call {
	if n < l.next-len(l.ring) {
		return Call{}
	}
	c := &l.ring[n%keptCalls]
	change(c)
	return *c
}

// Calls returns the calls that f selects, in the order in which they were received. Only the newest 200,000 calls are kept.
func (s *Server) Calls(f Filter) []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Call
	s.calls.each(f, func(c *Call) { list = append(list, *c) })
	slices.Reverse(list)
	return list
}

// Count returns the number of calls that f selects. Without Since it reads a counter, which includes calls that are no longer kept.
func (s *Server) Count(f Filter) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.Since.IsZero() {
		return s.calls.counts[countKey{f.AppID, f.Endpoint}]
	}
	n := 0
	s.calls.each(f, func(*Call) { n++ })
	return n
}
