// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// proxyNotReached describes a failure of the connection to the proxy.
const proxyNotReached = "the proxy was not reached"

// errPanic replaces the value of a panic in net/http, which must not be shown.
var errPanic = errors.New("an internal error of the HTTP client")

// nextNetwork is the advice for a call without an answer.
const nextNetwork = "If this lasts, check DNS, firewall and HTTPS_PROXY between the operator and WeChat."

// unreachable returns the error for a call without an answer. Its message does not quote err, because errors of net/http contain the
// URL, and it holds none of the secrets.
func (c *Client) unreachable(endpoint int, err error, secrets []token.Value) *token.Error {
	what, cause := describe(err)
	next := nextNetwork
	if problem, ok := c.certificateProblem(endpoint, err); ok {
		cause, next = nil, problem.next
		if isProxyConnect(err) {
			problem.what = what + ": " + problem.what
		}
		what = hide(problem.what, secrets)
	}
	return &token.Error{Class: token.Transient, Reason: v1alpha1.ReasonUnreachable, Cause: cause,
		Message: fmt.Sprintf("No answer from %s: %s. %s", c.endpoints[endpoint].Host, what, next)}
}

// describe returns a description of an error of the transport, and the cause that the caller's error wraps.
func describe(err error) (what string, cause error) {
	var refused proxyRefusal
	var dns *net.DNSError
	var op *net.OpError
	switch {
	case errors.Is(err, context.Canceled):
		return "the call was cancelled", context.Canceled
	case errors.Is(err, errPanic):
		return errPanic.Error(), nil
	case errors.As(err, &refused):
		return refused.Error(), nil
	case isProxyConnect(err):
		return proxyNotReached, causeOf(err)
	case errors.As(err, &dns):
		return "its name was not resolved", causeOf(err)
	case errors.As(err, new(tls.RecordHeaderError)):
		return "it does not speak TLS", nil
	case errors.As(err, &op) && op.Op == "remote error": // crypto/tls uses this name for an alert of the server
		return "it refuses the operator's TLS handshake, which offers TLS 1.2 or later and no client certificate", nil
	case errors.As(err, new(unansweredHandshake)) && isTimeout(err):
		return "its TLS handshake was not answered in time", context.DeadlineExceeded
	case isTimeout(err):
		return "the time for an answer is over", context.DeadlineExceeded
	case errors.Is(err, syscall.ECONNREFUSED):
		return "the connection was refused", syscall.ECONNREFUSED
	case isCut(err):
		return "the connection was cut", io.ErrUnexpectedEOF
	}
	return "the connection failed", causeOf(err)
}

// isProxyConnect reports whether the connection to the proxy failed.
func isProxyConnect(err error) bool {
	op, ok := errors.AsType[*net.OpError](err) // net/http wraps the error of the connection
	return ok && op.Op == "proxyconnect"
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}

// isCut reports whether the other side, or something on the way, ended the connection.
func isCut(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// causeOf returns context.DeadlineExceeded for a timeout, the syscall.Errno in err if there is one, and nil otherwise. Neither
// contains text from outside.
func causeOf(err error) error {
	if isTimeout(err) {
		return context.DeadlineExceeded
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	return nil
}
