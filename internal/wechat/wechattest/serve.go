// SPDX-License-Identifier: Apache-2.0

package wechattest

import (
	"crypto/tls"
	"net"
	"net/http"
	"strconv"
	"time"
)

const jsonType = "application/json; encoding=utf-8" // WeChat's spelling

// connKey is the key of the connection in the context of a request.
type connKey struct{}

// reply is an answer before it is sent.
type reply struct {
	status      int
	contentType string
	body        []byte
	errcode     int
	minted      bool
	// scene, if not empty, makes the body a picture of it.
	scene string
}

// exchange is a call in progress.
type exchange struct {
	request
	number  int // number of its Call
	fault   Fault
	faulted bool
}

// serve answers a request, or panics with http.ErrAbortHandler to abort it.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	if !s.lifetime.enter() {
		panic(http.ErrAbortHandler)
	}
	defer s.lifetime.leave()
	q, err := readRequest(r)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	x := s.begin(q)
	if s.options.OnCall != nil {
		defer func() { s.options.OnCall(s.update(x.number, func(*Call) {})) }()
	}
	if !s.exchange(w, r, x) {
		panic(http.ErrAbortHandler)
	}
}

// begin records the call and takes the fault that applies to it.
func (s *Server) begin(q request) exchange {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t, ok := s.platform.ledger.byValue[q.token]; ok {
		q.appID = t.AppID
	} else if t, ok := s.platform.users.tokens[q.token]; ok {
		q.appID = t.AppID
	}
	x := exchange{request: q}
	x.fault, x.faulted = s.faults.take(q.appID, q.endpoint)
	x.number = s.calls.add(Call{
		At: time.Now(), Clock: s.platform.now(), Endpoint: q.endpoint, AppID: q.appID,
		Forced: q.force, Fault: x.faulted, RemoteAddr: q.remote,
	})
	return x
}

// exchange processes a call and answers it. It returns false if the call must be aborted.
func (s *Server) exchange(w http.ResponseWriter, r *http.Request, x exchange) bool {
	switch {
	case !s.lifetime.wait(r, x.fault.Delay):
		return false
	case x.fault.Hang:
		s.lifetime.hang(r)
		return false
	case x.fault.Cut == CutBefore:
		cut(r, true)
		return false
	}
	a := x.process(s)
	if a.scene != "" {
		a.body = codeJPEG(a.scene) // slow, so it runs without the lock
	}
	switch {
	case !s.lifetime.wait(r, x.fault.DelayAnswer):
		return false
	case x.fault.Cut == CutAfter:
		cut(r, true)
		return false
	}
	return x.send(s, w, r, a)
}

// process makes the answer. It records the outcome under the same lock as the token, so that nobody sees one without the other.
func (x exchange) process(s *Server) reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	var a reply
	if x.fault.answers() {
		a = x.fault.reply(x.request, s.platform.now())
	} else {
		a = s.platform.answer(x.request)
	}
	s.calls.update(x.number, func(c *Call) { c.Errcode, c.Minted = a.errcode, a.minted })
	return a
}

// cut closes the connection of a request. With reset it discards data that has not been sent yet. With HTTP/2 it does nothing, because
// other calls use the same connection. The panic that follows then ends only the stream.
func cut(r *http.Request, reset bool) {
	conn, ok := r.Context().Value(connKey{}).(net.Conn)
	if !ok || r.ProtoMajor != 1 {
		return
	}
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	if tcp, ok := conn.(*net.TCPConn); ok && reset {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// send writes an answer. It returns false if the answer was not sent completely.
func (x exchange) send(s *Server, w http.ResponseWriter, r *http.Request, a reply) bool {
	if a.status < http.StatusOK || a.status > 999 {
		a.status = http.StatusInternalServerError // net/http does not accept other values
	}
	if a.status == http.StatusNoContent || a.status == http.StatusNotModified {
		a.body = nil
	}
	halved := x.fault.Cut == CutBody
	// The call is marked before the answer is sent, so that a client that has received it finds the call finished.
	s.update(x.number, func(c *Call) { c.HTTPStatus, c.Finished = a.status, !halved })
	h := w.Header()
	h.Set("Date", s.Now().Format(http.TimeFormat))
	h.Set("Content-Type", a.contentType)
	if a.body != nil {
		h.Set("Content-Length", strconv.Itoa(len(a.body)))
	}
	w.WriteHeader(a.status)
	part := a.body
	if halved {
		part = part[:len(part)/2]
	}
	_, err := w.Write(part)
	if err == nil {
		err = http.NewResponseController(w).Flush()
	}
	switch {
	case halved:
		cut(r, false)
		return false
	case err != nil:
		s.update(x.number, func(c *Call) { c.Finished = false })
		return false
	}
	return true
}
