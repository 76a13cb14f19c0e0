// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"
)

// AnswerWithin is how long an API request may wait for the beginning of its answer. Otherwise a pass could wait in a network that
// drops everything until its own deadline of minutes, although 30 s of reachability must be enough to rotate a token.
const AnswerWithin = 10 * time.Second

var errNoAnswer = errors.New("the API server did not answer in time")

// deadline is a transport that gives up requests without an answer, except watches and informers' lists.
type deadline struct {
	next   http.RoundTripper
	within time.Duration
}

// WithDeadline returns a transport that gives up requests without an answer, except watches and informers' lists.
func WithDeadline(next http.RoundTripper) http.RoundTripper {
	return &deadline{next: next, within: AnswerWithin}
}

func (d *deadline) RoundTrip(req *http.Request) (*http.Response, error) {
	if patient(req) {
		return d.next.RoundTrip(req)
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	timer := time.AfterFunc(d.within, func() { cancel(errNoAnswer) })
	res, err := d.next.RoundTrip(req.WithContext(ctx))
	if err != nil {
		timer.Stop()
		if errors.Is(context.Cause(ctx), errNoAnswer) {
			err = errNoAnswer
		}
		cancel(nil)
		return nil, err
	}
	if !timer.Stop() {
		_ = res.Body.Close()
		return nil, errNoAnswer
	}
	res.Body = endingBody{res.Body, cancel}
	return res, nil
}

// endingBody cancels the request's context when the answer's body is closed. Its parent may live as long as the process, and would
// keep a reference to it.
type endingBody struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
}

func (b endingBody) Close() error {
	defer b.cancel(nil)
	return b.ReadCloser.Close()
}

// patient reports whether a request is a watch or an informer's list, whose answer may take long to begin.
func patient(req *http.Request) bool {
	query := req.URL.Query()
	return req.Method == http.MethodGet && (query.Has("watch") || query.Has("limit") || query.Has("resourceVersion"))
}
