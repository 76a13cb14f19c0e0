// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
)

// Exit codes, as documented in docs/plugin.md.
const (
	exitOK = 0
	// exitFailed means that the command could not be carried out.
	exitFailed = 1
	// exitUsage means that the command line is wrong, or that a question was not answered with yes.
	exitUsage = 2
	// exitBad means that the command was carried out and the result is bad: the attempt failed, no valid token can be expected, or
	// doctor found errors.
	exitBad = 3
	// exitTimeout means that the result did not come within --timeout.
	exitTimeout = 4
	// exitInterrupted is the code that shells report after Ctrl-C.
	exitInterrupted = 130
)

// problem is an error with an exit code and advice.
type problem struct {
	code int
	// what says what happened.
	what string
	// next says what to do, as advice does. It may be empty.
	next string
	err  error
}

func (p *problem) Error() string {
	if p.next == "" {
		return p.what
	}
	return p.what + "\n" + p.next
}

func (p *problem) Unwrap() error { return p.err }

func failed(next, format string, args ...any) error {
	return &problem{code: exitFailed, what: fmt.Sprintf(format, args...), next: next}
}

func usage(format string, args ...any) error {
	return &problem{code: exitUsage, what: fmt.Sprintf(format, args...)}
}

func bad(next, format string, args ...any) error {
	return &problem{code: exitBad, what: fmt.Sprintf(format, args...), next: next}
}

func timedOut(next, format string, args ...any) error {
	return &problem{code: exitTimeout, what: fmt.Sprintf(format, args...), next: next}
}

// exitCode returns the exit code of a command that ended with err.
func exitCode(ctx context.Context, err error) int {
	var p *problem
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &p):
		return p.code
	case ctx.Err() != nil:
		return exitInterrupted
	}
	return exitFailed
}

// explain returns an error of a request to the API server with advice added. The phrase doing completes "could not …".
func explain(err error, doing string) error {
	if err == nil {
		return nil
	}
	var known *problem
	if errors.As(err, &known) || errors.Is(err, context.Canceled) {
		return err
	}
	p := &problem{code: exitFailed, what: fmt.Sprintf("could not %s: %v", doing, err), err: err}
	var (
		network *net.OpError
		address *url.Error
	)
	switch {
	case isAuthProvider(err):
		p.next = "Replace the auth-provider of this context's user by a credential plugin (exec). " +
			"This shows the user:\nkubectl config view --minify"
	case missingKind(err):
		p.what = fmt.Sprintf("could not %s: this cluster does not know the kind WeChatAppToken", doing)
		p.next = "Install the operator with its CRD, or choose another cluster with --context."
	case apierrors.IsForbidden(err):
		p.next = "Ask for the role that is needed: view sees WeChatAppTokens, edit changes them and reads Secrets; or use another --context."
	case apierrors.IsUnauthorized(err):
		p.next = "Log in again, or use another --context."
	case clientcmd.IsEmptyConfig(err):
		p.what = fmt.Sprintf("could not %s: no cluster is configured", doing)
		p.next = "Set KUBECONFIG, or name a file with --kubeconfig."
	case errors.As(err, &network), errors.As(err, &address), apierrors.IsTimeout(err), apierrors.IsServerTimeout(err):
		p.next = "Is the cluster up, and is it the right one? --context chooses another. " +
			"This shows which one it is:\nkubectl config current-context"
	}
	return p
}

// isAuthProvider reports whether the kubeconfig's user has an auth-provider that client-go does not have, or no longer.
func isAuthProvider(err error) bool {
	text := err.Error()
	return strings.Contains(text, "no Auth Provider found") || strings.Contains(text, "auth plugin has been removed")
}

// missingKind reports whether the API server does not know the kind. Its answer is then "not found" too, but without the details that
// name a missing object.
func missingKind(err error) bool {
	var status apierrors.APIStatus
	if !apierrors.IsNotFound(err) || !errors.As(err, &status) {
		return false
	}
	details := status.Status().Details
	if details == nil {
		return true
	}
	for _, cause := range details.Causes {
		if cause.Type == metav1.CauseTypeUnexpectedServerResponse {
			return true
		}
	}
	return false
}
