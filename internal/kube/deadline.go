// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// AnswerWithin is how long an API request may wait for the beginning of its answer. Otherwise a pass could wait in a network that
// drops everything until its own deadline of minutes, although 30 s of reachability must be enough to rotate a token. It is longer than
// the 10 s that an API server waits for a webhook by default: only then the write goes on, or the answer names the webhook.
const AnswerWithin = 15 * time.Second

// informedWithin is the same for an informer's list, and for the first byte of a watch, which an API server sends at once. It is twice as
// long as an API server works on a list by default. Without it a request that something on the way swallowed would leave a cache as it is
// for ever.
const informedWithin = 2 * time.Minute

var errNoAnswer = fmt.Errorf("the API server did not answer in time: %w", context.DeadlineExceeded)

// deadline is a transport that gives up requests without an answer, watches and informers' lists later than others.
type deadline struct {
	next                   http.RoundTripper
	within, informedWithin time.Duration
}

// WithDeadline returns a transport that gives up requests whose answer does not begin within AnswerWithin; watches and informers' lists may
// take longer.
func WithDeadline(next http.RoundTripper) http.RoundTripper {
	return &deadline{next: next, within: AnswerWithin, informedWithin: informedWithin}
}

func (d *deadline) RoundTrip(req *http.Request) (*http.Response, error) {
	within := d.within
	if patient(req) {
		within = d.informedWithin
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	timer := time.AfterFunc(within, func() { cancel(errNoAnswer) })
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
