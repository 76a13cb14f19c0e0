// SPDX-License-Identifier: Apache-2.0

package wechattest

import (
	"crypto/rand"
	"net/http"
	"slices"
	"time"
)

// Cut is the point at which a call is aborted. With HTTP/1.1 the connection is closed. With HTTP/2 only the call's stream is, so that the
// fault affects no other calls. Note that net/http sends a GET again if a reused connection is closed before the first byte
// of the answer. Both requests are then recorded as a Call.
type Cut string

// The points at which a call can be aborted.
const (
	// CutBefore resets the connection before the request is processed.
	CutBefore Cut = "before"
	// CutAfter resets the connection after the request is processed, so that a token may have been issued.
	CutAfter Cut = "after"
	// CutBody closes the connection after half of the answer is sent. The Content-Length is that of the whole answer.
	CutBody Cut = "body"
)

// Fault describes how calls fail. With Errcode, Status, Body, ContentType, Garbage, Hang or CutBefore a request is not processed, so no
// token is issued. With only Delay, DelayAnswer, CutAfter or CutBody it is processed.
type Fault struct {
	// AppID and Endpoint select the calls that fail. If they are empty, all do. AppID is compared with Call.AppID.
	AppID    string   `json:"appID,omitempty"`
	Endpoint Endpoint `json:"endpoint,omitempty"`
	// Times is the number of calls that fail. If it is 0, calls fail until ClearFaults.
	Times int `json:"times,omitempty"`
	// Errcode and Errmsg are those of the answer. The default Errmsg is WeChat's text for the code with a rid, and in the case of
	// 40164 with the caller's address.
	Errcode int    `json:"errcode,omitempty"`
	Errmsg  string `json:"errmsg,omitempty"`
	// Status is the HTTP status of the answer. The default is 200. Without Errcode and Body, the body is an HTML page of a gateway.
	Status int `json:"status,omitempty"`
	// Body is the body of the answer. It may be empty if ContentType is set.
	Body string `json:"body,omitempty"`
	// ContentType is the type of Body. The default is application/json.
	ContentType string `json:"contentType,omitempty"`
	// Delay is the time before the request is processed, and DelayAnswer the time between that and the answer, both in real
	// time. If the client gives up during Delay, its request is not processed.
	Delay       time.Duration `json:"delay,omitempty"`
	DelayAnswer time.Duration `json:"delayAnswer,omitempty"`
	// Hang delays the answer until the client gives up or the server is closed.
	Hang bool `json:"hang,omitempty"`
	Cut  Cut  `json:"cut,omitempty"`
	// Garbage makes the body random bytes that are not JSON.
	Garbage bool `json:"garbage,omitempty"`
}

// Inject appends a fault to those that were injected before. Only the first fault that selects a call is applied to it.
func (s *Server) Inject(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, &f)
}

// ClearFaults removes all faults. Calls in progress to which a fault was applied are not affected.
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

// answers reports whether the fault replaces the answer.
func (f *Fault) answers() bool {
	return f.Errcode != 0 || f.Status != 0 || f.Body != "" || f.ContentType != "" || f.Garbage
}

const gatewayPage = "<html>\r\n<head><title>Bad Gateway</title></head>\r\n" +
	"<body>\r\n<center><h1>Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n"

// reply returns the answer of the fault.
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

// garbage returns random bytes that are neither JSON nor UTF-8 text.
func garbage() []byte {
	bytes := make([]byte, 256)
	_, _ = rand.Read(bytes) // never fails
	bytes[0] = 0xff
	return bytes
}
