// SPDX-License-Identifier: Apache-2.0

package httpserver

import (
	"io"
	"net/http"
	"time"
)

const (
	// streamingConnections is the number of connections that a server of long bodies holds open at the same time.
	streamingConnections = 4096
	// streamingIdle is longer than most clients keep a connection, so that it is they who close it: a request that meets a connection
	// that is being closed is lost.
	streamingIdle = 2 * time.Minute
)

// NewStreaming returns a server for a handler whose requests and answers may be long and take as long as they move: each read of a
// request and each write of an answer must get on within stall. There is no limit to the time that the handler takes for itself.
func NewStreaming(handler http.Handler, stall time.Duration) *http.Server {
	s := New(nil)
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := &progress{control: http.NewResponseController(w), stall: stall}
		if r.Body != http.NoBody {
			r.Body = &movingBody{ReadCloser: r.Body, progress: p}
		}
		handler.ServeHTTP(&movingWriter{ResponseWriter: w, progress: p}, r)
	})
	s.ReadTimeout, s.WriteTimeout, s.IdleTimeout = 0, 0, streamingIdle
	s.DisableGeneralOptionsHandler = true // the handler decides about every request
	return s
}

// progress moves the deadlines of a connection. Errors are left to the read or write that follows.
type progress struct {
	control *http.ResponseController
	stall   time.Duration
}

func (p *progress) read()  { _ = p.control.SetReadDeadline(time.Now().Add(p.stall)) }
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
	if err != nil {
		// net/http watches the connection from now on. It would take the end of the time for the end of the client if this read was not the
		// first one at the end of the body.
		_ = b.progress.control.SetReadDeadline(time.Time{})
	}
	return n, err //nolint:wrapcheck // io.EOF must stay what it is
}

// movingWriter is the writer of an answer.
type movingWriter struct {
	http.ResponseWriter
	progress *progress
}

// Write implements io.Writer.
func (w *movingWriter) Write(p []byte) (int, error) {
	w.progress.write()
	return w.ResponseWriter.Write(p) //nolint:wrapcheck // it belongs to net/http
}

// FlushError sends what was written. http.ResponseController calls it.
func (w *movingWriter) FlushError() error {
	w.progress.write()
	return w.progress.control.Flush() //nolint:wrapcheck // it belongs to net/http
}

// Unwrap lets http.ResponseController find the writer of net/http.
func (w *movingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
