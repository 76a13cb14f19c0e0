// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"net/http"
	"time"

	"github.com/go-logr/logr"
)

const (
	// redialInterval is the time between two attempts of an informer to reach the API server.
	redialInterval = time.Second
	// redialFor is how long an informer's request may try. It is longer than the two minutes without a failure after which client-go forgets
	// the failures before.
	redialFor = 3 * time.Minute
)

// redial is a transport that sends an informer's request again while the API server cannot be reached.
type redial struct {
	next http.RoundTripper
	log  logr.Logger
}

// WithRedial returns a function that wraps a transport, so that an informer's request is sent again each second while the API server cannot
// be reached. client-go waits longer after each failure, up to a minute, and what a cache has would be as old for that long after the API
// server is back. Other requests fail at once.
func WithRedial(log logr.Logger) func(http.RoundTripper) http.RoundTripper {
	return func(next http.RoundTripper) http.RoundTripper { return &redial{next, log} }
}

func (r *redial) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := r.next.RoundTrip(req)
	if err == nil || !fromInformer(req) || req.Context().Err() != nil {
		return res, err
	}
	r.log.Info("the API server cannot be reached, trying again each second", "path", req.URL.Path, "error", err.Error())
	again, enough := time.NewTicker(redialInterval), time.NewTimer(redialFor)
	defer again.Stop()
	defer enough.Stop()
	for err != nil {
		select {
		case <-req.Context().Done():
			return nil, err
		case <-enough.C:
			return nil, err
		case <-again.C:
		}
		res, err = r.next.RoundTrip(req)
	}
	return res, err
}

// fromInformer reports whether a request is a watch or the list before one. What lists without a cache names no version.
func fromInformer(req *http.Request) bool {
	query := req.URL.Query()
	return req.Method == http.MethodGet && (query.Has("watch") || query.Has("resourceVersion"))
}
