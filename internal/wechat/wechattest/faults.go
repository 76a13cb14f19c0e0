// SPDX-License-Identifier: Apache-2.0

package wechattest

import (
	"crypto/rand"
	"net/http"
	"slices"
	"time"
)

// Cut is a place to cut a call. With HTTP/1.1 the connection is cut, with HTTP/2 the call's stream alone,
// so that a fault never hits calls that it is not meant for. Mind that net/http repeats a GET by itself
// when a kept connection is cut before the first byte of the answer: Call shows both.
type Cut string

// The places to cut a call.
const (
	// CutBefore resets the connection before the request is processed.
	CutBefore Cut = "before"
	// CutAfter processes the request, so that a token may be made, and resets the connection.
	CutAfter Cut = "after"
	// CutBody processes the request and sends half of the answer, with the Content-Length of all of it.
	CutBody Cut = "body"
)

// Fault is something that goes wrong. Errcode, Status, Body, ContentType, Garbage, Hang and CutBefore
// take the place of the request's processing, so no token is made; a Fault of Delay, DelayAnswer, CutAfter
// and CutBody alone lets it be processed.
type Fault struct {
	// AppID and Endpoint choose the calls that it is for; empty chooses all. AppID is compared with
	// Call.AppID.
	AppID    string   `json:"appID,omitempty"`
	Endpoint Endpoint `json:"endpoint,omitempty"`
	// Times is how many calls it is used on; 0 means until ClearFaults.
	Times int `json:"times,omitempty"`
	// Errcode and Errmsg are WeChat's answer. The default Errmsg is the one that WeChat has for the code,
	// with a rid, and with the caller's address for 40164.
	Errcode int    `json:"errcode,omitempty"`
	Errmsg  string `json:"errmsg,omitempty"`
	// Status is the HTTP status, default 200. Without Errcode and Body a gateway's web page is sent.
	Status int `json:"status,omitempty"`
	// Body is sent as it is. It may be empty when ContentType is set.
	Body string `json:"body,omitempty"`
	// ContentType is the type of Body, default application/json.
	ContentType string `json:"contentType,omitempty"`
	// Delay passes before the request is processed, DelayAnswer between that and the answer, both in real
	// time. A client that gives up within Delay is not processed.
	Delay       time.Duration `json:"delay,omitempty"`
	DelayAnswer time.Duration `json:"delayAnswer,omitempty"`
	// Hang gives no answer until the client gives up or the server is closed.
	Hang bool `json:"hang,omitempty"`
	Cut  Cut  `json:"cut,omitempty"`
	// Garbage sends random bytes that are no JSON.
	Garbage bool `json:"garbage,omitempty"`
}

// Inject adds a fault behind those that are there. A call meets the first one that is for it, and no
// other.
func (s *Server) Inject(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, &f)
}

// ClearFaults drops all faults. A call that has met its fault stays with it.
func (s *Server) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// faultList holds the faults that are left, in the order in which they were injected.
type faultList []*Fault

// take returns the first fault that applies to a call, and counts the use.
func (l *faultList) take(appID string, endpoint Endpoint) (Fault, bool) {
	for i, f := range *l {
		if f.AppID != "" && f.AppID != appID || f.Endpoint != "" && f.Endpoint != endpoint {
			continue
		}
		switch f.Times {
		case 0:
		case 1:
			*l = slices.Delete(*l, i, i+1)
		default:
			f.Times--
		}
		return *f, true
	}
	return Fault{}, false
}

// answers reports whether the fault has an answer of its own.
func (f *Fault) answers() bool {
	return f.Errcode != 0 || f.Status != 0 || f.Body != "" || f.ContentType != "" || f.Garbage
}

const gatewayPage = "<html>\r\n<head><title>Bad Gateway</title></head>\r\n" +
	"<body>\r\n<center><h1>Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n"

// reply is the fault's own answer.
func (f *Fault) reply(q request, now time.Time) reply {
	a := reply{status: http.StatusOK, contentType: jsonType}
	switch {
	case f.Errcode != 0:
		a = q.fail(f.Errcode, f.Errmsg, now)
	case f.Garbage:
		a.contentType, a.body = "application/octet-stream", garbage()
	case f.Body != "" || f.ContentType != "":
		a.body = []byte(f.Body)
	default:
		a.contentType, a.body = "text/html", []byte(gatewayPage)
	}
	if f.ContentType != "" {
		a.contentType = f.ContentType
	}
	if f.Status != 0 {
		a.status = f.Status
	}
	return a
}

// garbage is never JSON and never text.
func garbage() []byte {
	bytes := make([]byte, 256)
	_, _ = rand.Read(bytes) // it never fails
	bytes[0] = 0xff
	return bytes
}
