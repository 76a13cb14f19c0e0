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

// errPanic stands for a panic below us, whose value is not shown.
var errPanic = errors.New("an internal error of the HTTP client")

// unreachable makes the error of a call without an answer. Errors of net/http hold the URL, so nothing
// of err is shown: it is recognised, and described in our own words.
func unreachable(host string, err error) *token.Error {
	what, cause := describe(err)
	return &token.Error{Class: token.Transient, Reason: v1alpha1.ReasonUnreachable, Cause: cause,
		Message: fmt.Sprintf("No answer from %s: %s. If this lasts, check DNS, firewall and HTTPS_PROXY between the operator and WeChat.",
			host, what)}
}

// describe gives the words for an error of the transport, and what errors.Is may find.
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
	case errors.As(err, &op) && op.Op == "proxyconnect": // holds what happened on the way to the proxy
		return "the proxy was not reached", causeOf(err)
	case errors.As(err, &dns):
		return "its name was not resolved", causeOf(err)
	case errors.As(err, new(*tls.CertificateVerificationError)):
		return "its certificate is not trusted; a CA of your own belongs into --wechat-ca-file", nil
	case errors.As(err, new(tls.RecordHeaderError)):
		return "it does not speak TLS", nil
	case op != nil && op.Op == "remote error": // crypto/tls calls an alert of the server so
		return "it refuses the operator's TLS handshake, which offers TLS 1.2 or later and no client certificate", nil
	case isTimeout(err):
		return "the time for an answer is over", context.DeadlineExceeded
	case errors.Is(err, syscall.ECONNREFUSED):
		return "the connection was refused", syscall.ECONNREFUSED
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "the connection was cut", io.ErrUnexpectedEOF
	}
	return "the connection failed", causeOf(err)
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}

// causeOf finds a deadline or the number of a system call, neither of which holds a text of others.
func causeOf(err error) error {
	if isTimeout(err) {
		return context.DeadlineExceeded
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	return nil
}
