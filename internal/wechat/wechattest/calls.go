// SPDX-License-Identifier: Apache-2.0

package wechattest

import (
	"slices"
	"time"
)

// keptCalls is how many calls are kept; the counters go on beyond it.
const keptCalls = 200_000

// Endpoint is the last part of the path of an interface.
type Endpoint string

// The interfaces that the server knows. A call of another path is answered with HTTP 404, and is written
// down with an empty Endpoint.
const (
	EndpointStable     Endpoint = "stable_token"
	EndpointLegacy     Endpoint = "token"
	EndpointProbe      Endpoint = "get_api_domain_ip"
	EndpointCode       Endpoint = "getwxacodeunlimit"
	EndpointTicket     Endpoint = "getticket"
	EndpointCallbackIP Endpoint = "getcallbackip"
)

// Call is one request. It is there from the moment when the request has been read; what is only known
// later is filled in later, and before the client has its answer.
type Call struct {
	// At is when it came, on the local clock; Clock is the same moment on the server's.
	At       time.Time `json:"at"`
	Clock    time.Time `json:"clock"`
	Endpoint Endpoint  `json:"endpoint,omitempty"`
	// AppID is what the call names, or the owner of its token, empty when that is unknown.
	AppID string `json:"appID,omitempty"`
	// Errcode and HTTPStatus are those of the answer. HTTPStatus stays 0 when none was sent.
	Errcode    int `json:"errcode,omitempty"`
	HTTPStatus int `json:"httpStatus,omitempty"`
	// Forced says that it asked for a forced refresh.
	Forced bool `json:"forced,omitempty"`
	// Fault says that an injected fault was used on it.
	Fault bool `json:"fault,omitempty"`
	// Minted says that it made a new token.
	Minted     bool   `json:"minted,omitempty"`
	RemoteAddr string `json:"remoteAddr,omitempty"`
	// Finished says that all of the answer was handed to the network.
	Finished bool `json:"finished,omitempty"`
}

// Filter chooses calls; an empty field chooses all.
type Filter struct {
	AppID    string   `json:"appID,omitempty"`
	Endpoint Endpoint `json:"endpoint,omitempty"`
	// Since is the earliest Call.At.
	Since time.Time `json:"since,omitzero"`
}

func (f Filter) matches(c *Call) bool {
	return (f.AppID == "" || f.AppID == c.AppID) && (f.Endpoint == "" || f.Endpoint == c.Endpoint)
}

// callLog is a ring of the newest calls, and counters of all.
type callLog struct {
	ring []Call
	// next is the number of the next call; call n is at n modulo keptCalls.
	next   int
	counts map[countKey]int
}

type countKey struct {
	appID    string
	endpoint Endpoint
}

func newCallLog() callLog { return callLog{counts: make(map[countKey]int)} }

// add returns the number of the call.
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

// each visits the kept calls that a filter chooses, the newest first.
func (l *callLog) each(f Filter, visit func(*Call)) {
	for n := l.next - 1; n >= l.next-len(l.ring); n-- {
		c := &l.ring[n%keptCalls]
		if c.At.Before(f.Since) {
			return // they came in this order
		}
		if f.matches(c) {
			visit(c)
		}
	}
}

// update changes a call that is still kept, and returns it.
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

// Calls lists the calls that a filter chooses, in the order in which they came. The newest 200,000 are
// kept.
func (s *Server) Calls(f Filter) []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Call
	s.calls.each(f, func(c *Call) { list = append(list, *c) })
	slices.Reverse(list)
	return list
}

// Count counts the calls that a filter chooses. Without Since it is a look at a counter, and counts calls
// that are no longer kept too.
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
