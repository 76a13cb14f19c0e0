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

// Call is one request to one endpoint, for whoever counts and times them. It holds nothing secret.
type Call struct {
	// Endpoint is the last part of the path: one of EndpointNames.
	Endpoint string
	// Host is one of Hosts.
	Host string
	// Outcome is OutcomeSuccess, OutcomeCancelled or the Reason of the failure.
	Outcome string
	// Code is WeChat's errcode, 0 when there was none.
	Code int
	// Duration is the time from the start to the answer or the failure, connecting included.
	Duration time.Duration
}

// The outcomes of a Call that are no Reason.
const (
	OutcomeSuccess = "Success"
	// OutcomeCancelled: the caller went before the answer came.
	OutcomeCancelled = "Cancelled"
)

// EndpointNames are the values of Call.Endpoint.
func EndpointNames() []string {
	return []string{endpointName(pathStable), endpointName(pathLegacy), endpointName(pathProbe)}
}

func endpointName(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

// Hosts are the values of Call.Host: those of the configured endpoints.
func (c *Client) Hosts() []string {
	hosts := make([]string, 0, len(c.endpoints))
	for _, e := range c.endpoints {
		hosts = append(hosts, e.Host)
	}
	return hosts
}

// KnownCode tells whether an errcode is in the tables of this package. Whatever else a server answers says nothing
// that could be counted under a name of its own.
func KnownCode(code int) bool {
	return slices.ContainsFunc(probeCodes, func(o outcome) bool { return o.code == code })
}

// attempt makes one request and tells the observer about it.
func (c *Client) attempt(ctx context.Context, endpoint int, r request) (reply, *token.Error) {
	if c.observe == nil {
		return c.try(ctx, endpoint, r)
	}
	begin := c.clock.mark()
	answer, err := c.try(ctx, endpoint, r)
	call := Call{
		Endpoint: endpointName(r.path), Host: c.endpoints[endpoint].Host, Outcome: OutcomeSuccess,
		Duration: between(begin, c.clock.mark()),
	}
	if err != nil {
		call.Outcome, call.Code = string(err.Reason), err.Code
		if err.Reason == v1alpha1.ReasonUnreachable && errors.Is(ctx.Err(), context.Canceled) && errors.Is(err, context.Canceled) {
			call.Outcome = OutcomeCancelled
		}
	}
	c.observe(call)
	return answer, err
}
