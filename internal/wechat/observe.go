// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// Call describes one request to one endpoint for Options.Observe. It contains no secrets.
type Call struct {
	// Endpoint is the last part of the path, or "ticket" for getticket.
	Endpoint string
	// Host is that of one of the configured endpoints.
	Host string
	// Outcome is OutcomeSuccess, OutcomeCancelled or the reason of the failure.
	Outcome string
	// Code is WeChat's errcode, or 0 if there was none.
	Code int
	// Duration is the time until the answer or the failure. It includes the time for connecting.
	Duration time.Duration
}

// Outcomes of a Call that are not reasons of a failure.
const (
	OutcomeSuccess = "Success"
	// OutcomeCancelled means that the caller cancelled the call before the answer was received.
	OutcomeCancelled = "Cancelled"
)

func endpointName(path string) string {
	if path == pathTicket {
		return "ticket"
	}
	return path[strings.LastIndexByte(path, '/')+1:]
}

// KnownCode reports whether an errcode is in the tables of this package. Metrics must not use other codes as labels, because a server
// can make up any number of them.
func KnownCode(code int) bool {
	return slices.ContainsFunc(ticketCodes, func(o outcome) bool { return o.code == code })
}

// attempt calls try and then the observer.
func (c *Client) attempt(ctx context.Context, endpoint int, r request) (reply, *token.Error) {
	begin := c.clock.mark()
	answer, err := c.try(ctx, endpoint, r)
	c.report(ctx, r.path, endpoint, begin, err)
	return answer, err
}

// report calls the observer, unless there is none.
func (c *Client) report(ctx context.Context, path string, endpoint int, begin instant, err *token.Error) {
	if c.observe == nil {
		return
	}
	call := Call{
		Endpoint: endpointName(path), Host: c.endpoints[endpoint].Host, Outcome: OutcomeSuccess,
		Duration: between(begin, c.clock.mark()),
	}
	if err != nil {
		call.Outcome, call.Code = string(err.Reason), err.Code
		if err.Reason == v1alpha1.ReasonUnreachable && errors.Is(ctx.Err(), context.Canceled) && errors.Is(err, context.Canceled) {
			call.Outcome = OutcomeCancelled
		}
	}
	c.observe(call)
}

// RefusesToken reports whether an errcode means that WeChat does not accept the access token of a call.
func RefusesToken(code int) bool {
	return slices.ContainsFunc(probeCodes, func(o outcome) bool { return o.code == code && o.reason == token.ReasonTokenRejected })
}
