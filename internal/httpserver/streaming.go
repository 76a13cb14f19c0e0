// SPDX-License-Identifier: Apache-2.0

package httpserver

import (
	"io"
	"net/http"
	"sync"
	"time"
)

const (
	// StreamingConnections is the number of connections that the listener of a server of NewStreaming should hold open.
	StreamingConnections = 2048
	// streamingIdle is longer than most clients keep a connection, so that it is they who close it: a request that meets a connection
	// that is being closed is lost.
	streamingIdle = 2 * time.Minute
	// unreadWithin is how long net/http may read what the handler left of a body, at most.
	unreadWithin = 5 * time.Second
)

// NewStreaming returns a server for a handler whose requests and answers may be long and take as long as they move: each read of a
// request and each write of an answer must get on within stall, unless the handler sets a deadline for reads itself. There is no limit to
// the time that the handler takes for itself.
func NewStreaming(handler http.Handler, stall time.Duration) *http.Server {
	s := New(nil)
	s.Handler = counted(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := &progress{control: http.NewResponseController(w), stall: stall, ended: r.Body == http.NoBody}
		if !p.ended {
			// net/http looks at the body of its own request when it decides what becomes of a body that was not read.
			own := *r
			own.Body = &movingBody{ReadCloser: r.Body, progress: p}
			r = &own
		}
		handler.ServeHTTP(&movingWriter{ResponseWriter: w, progress: p}, r)
		p.unread()
	}))
	s.ReadTimeout, s.WriteTimeout, s.IdleTimeout = 0, 0, streamingIdle
	s.DisableGeneralOptionsHandler = true // the handler decides about every request
	return s
}

// progress moves the deadlines of a connection. Errors are left to the read or write that follows.
type progress struct {
	control *http.ResponseController
	stall   time.Duration

	mu sync.Mutex
	// ended reports that the body was read to its end. net/http watches the connection from then on, and would take the end of the time
	// for the end of the client.
	ended bool
	// own reports that the handler has set a deadline for the body itself, which no read moves.
	own bool
}

// read gives the caller time to send more of the body.
func (p *progress) read() { p.readWithin(p.stall) }

// unread limits the time in which net/http reads what the handler left of the body. It is shorter than that of the write which follows.
func (p *progress) unread() { p.readWithin(min(p.stall/2, unreadWithin)) }

func (p *progress) readWithin(limit time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended && !p.own {
		_ = p.control.SetReadDeadline(time.Now().Add(limit))
	}
}

func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	_ = p.control.SetReadDeadline(time.Time{})
}

// set sets the deadline that the handler wants.
func (p *progress) set(deadline time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.own = !deadline.IsZero()
	return p.control.SetReadDeadline(deadline) //nolint:wrapcheck // it belongs to net/http
}

func (p *progress) write() { _ = p.control.SetWriteDeadline(time.Now().Add(p.stall)) }

// movingBody is the body of a request.
type movingBody struct {
	io.ReadCloser
	progress *progress
}

// Read implements io.Reader.
func (b *movingBody) Read(p []byte) (int, error) {
	b.progress.read()
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.progress.end()
	}
	return n, err //nolint:wrapcheck // io.EOF must stay what it is
}

// movingWriter is the writer of an answer.
type movingWriter struct {
	http.ResponseWriter
	progress *progress
	begun    bool
}

// begin moves the deadlines. Before net/http sends the first part of an answer, it reads what is left of the body.
func (w *movingWriter) begin() {
	w.progress.write()
	if !w.begun {
		w.begun = true
		w.progress.unread()
	}
}

// Write implements io.Writer.
func (w *movingWriter) Write(p []byte) (int, error) {
	w.begin()
	return w.ResponseWriter.Write(p) //nolint:wrapcheck // it belongs to net/http
}

// FlushError sends what was written. http.ResponseController calls it.
func (w *movingWriter) FlushError() error {
	w.begin()
	return w.progress.control.Flush() //nolint:wrapcheck // it belongs to net/http
}

// SetReadDeadline sets a deadline for the body instead of the one that moves; zero for that one. http.ResponseController calls it.
func (w *movingWriter) SetReadDeadline(deadline time.Time) error { return w.progress.set(deadline) }

// Unwrap lets http.ResponseController find the writer of net/http.
func (w *movingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
