// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat"
)

// otherCode stands for all undocumented errcodes, of which a server could invent any number.
const otherCode = "other"

// Calls counts and times the requests to WeChat.
type Calls struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

// NewCalls returns a Calls whose metrics are registered.
func NewCalls(registry prometheus.Registerer) (*Calls, error) {
	c := &Calls{
		requests: counterVec(nameRequests),
		duration: histogramVec(nameRequestDuration, []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}),
	}
	return c, register(registry, c.requests, c.duration)
}

// Observe counts a request. It is meant for the field Observe of wechat.Options.
func (c *Calls) Observe(call wechat.Call) {
	c.requests.WithLabelValues(call.Endpoint, call.Host, call.Outcome, errcode(call.Code)).Inc()
	c.duration.WithLabelValues(call.Endpoint, call.Host).Observe(call.Duration.Seconds())
}

// errcode returns the label for an errcode, which is empty for 0.
func errcode(code int) string {
	switch {
	case code == 0:
		return ""
	case wechat.KnownCode(code):
		return strconv.Itoa(code)
	}
	return otherCode
}
