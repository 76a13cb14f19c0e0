// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"github.com/prometheus/client_golang/prometheus"
)

// These are the names of all metrics. A test compares them with docs/metrics.md.
const (
	nameOperatorInfo  = "wechatapptoken_operator_info"
	nameScrapeSuccess = "wechatapptoken_scrape_success"

	nameNamespaceServed = "wechatapptoken_namespace_served"

	nameInfo         = "wechatapptoken_info"
	nameReady        = "wechatapptoken_ready"
	nameSuspended    = "wechatapptoken_suspended"
	nameExpiration   = "wechatapptoken_expiration_timestamp_seconds"
	nameNextRefresh  = "wechatapptoken_next_refresh_timestamp_seconds"
	nameLastCheck    = "wechatapptoken_last_check_timestamp_seconds"
	nameCondition    = "wechatapptoken_condition"
	nameLastError    = "wechatapptoken_last_error_timestamp_seconds"
	nameForcedLeft   = "wechatapptoken_forced_refreshes_left"
	nameForeignFetch = "wechatapptoken_foreign_fetches_total"

	nameTicketValid      = "wechatapptoken_ticket_valid"
	nameTicketExpiration = "wechatapptoken_ticket_expiration_timestamp_seconds"
	nameTicketIssue      = "wechatapptoken_ticket_issue_timestamp_seconds"

	nameRefresh  = "wechatapptoken_refresh_total"
	nameLateness = "wechatapptoken_rotation_lateness_seconds"
	nameDelivery = "wechatapptoken_delivery_duration_seconds"

	namePodsDelivery = "wechatapptoken_pod_delivery_duration_seconds"
	namePodsReached  = "wechatapptoken_pods_reached_total"
	namePodFailures  = "wechatapptoken_pod_delivery_failures_total"

	nameRequests        = "wechat_api_requests_total"
	nameRequestDuration = "wechat_api_request_duration_seconds"
)

// Type is the type of a metric, as Prometheus names it.
type Type string

const (
	Gauge     Type = "gauge"
	Counter   Type = "counter"
	Histogram Type = "histogram"
)

// Family describes one metric.
type Family struct {
	Name   string
	Type   Type
	Help   string
	Labels []string
}

func (f Family) desc() *prometheus.Desc {
	return prometheus.NewDesc(f.Name, f.Help, f.Labels, nil)
}

// Families returns all metrics of this package, in the order of docs/metrics.md.
func Families() []Family {
	resource := func(more ...string) []string { return append([]string{labelNamespace, labelName}, more...) }
	return []Family{
		{nameOperatorInfo, Gauge, "1, with the version of the operator that answers.", []string{labelVersion}},
		{nameScrapeSuccess, Gauge, "1 if the operator could read its resources for this scrape, else 0.", nil},
		{nameNamespaceServed, Gauge, "1 if the operator can read this namespace of --namespaces, else 0.", []string{labelNamespace}},

		{nameInfo, Gauge, "1, with what a WeChatAppToken is for.", resource(labelAppID, labelMode, labelTarget)},
		{nameReady, Gauge, "1 if the target Secret holds a token that is valid now, and so are all tickets of the spec, else 0.", resource()},
		{nameSuspended, Gauge, "1 if spec.suspend is true, else 0.", resource()},
		{nameExpiration, Gauge, "When WeChat stops accepting the token in the Secret; absent without one.", resource()},
		{nameNextRefresh, Gauge, "When the token is due to be replaced; absent without one.", resource()},
		{nameLastCheck, Gauge, "When WeChat last confirmed the token in the Secret to this process; absent before.", resource()},
		{
			nameCondition, Gauge, "1 for each condition of the status, except Ready while it is True.",
			resource(labelType, labelStatus, labelReason, labelTicket),
		},
		{
			nameLastError, Gauge, "When the last attempt failed; absent when it worked.",
			resource(labelReason, labelErrcode, labelTicket),
		},
		{
			nameForcedLeft, Gauge, "Forced refreshes that WeChat's 20 a day leave to the appid of a Stable WeChatAppToken.",
			resource(),
		},
		{
			nameForeignFetch, Counter, "Tokens of a Legacy WeChatAppToken that died early, because something else fetches for its appid.",
			resource(),
		},
		{nameTicketValid, Gauge, "1 if a ticket that the spec asks for was stored and has not expired, else 0.", resource(labelTicket)},
		{
			nameTicketExpiration, Gauge, "Until when the ticket in the Secret is taken to be valid; absent without one.",
			resource(labelTicket),
		},
		{nameTicketIssue, Gauge, "When the operator first saw the ticket in the Secret; absent without one.", resource(labelTicket)},

		{
			nameRefresh, Counter, "Attempts to get a token and to store it that ended with a new token in the Secret or failed.",
			[]string{labelReason, labelResult},
		},
		{nameLateness, Histogram, "Time from when a token was due to be replaced until the Secret held the next one.", nil},
		{nameDelivery, Histogram, "Time from the call that returned a new token until the Secret held it.", nil},
		{namePodsDelivery, Histogram, "Time from when a Secret held a new token until the last of its pods was told, with prompt delivery.", nil},
		{namePodsReached, Counter, "Pods that were told of a new token, with prompt delivery.", nil},
		{namePodFailures, Counter, "Attempts to list pods, or to tell one of a new token, that failed, with prompt delivery.", nil},

		{
			nameRequests, Counter, "Requests to WeChat's API.",
			[]string{labelEndpoint, labelHost, labelOutcome, labelErrcode},
		},
		{nameRequestDuration, Histogram, "Duration of requests to WeChat's API.", []string{labelEndpoint, labelHost}},
	}
}

// family returns the metric with one of the names above.
func family(name string) Family {
	for _, f := range Families() {
		if f.Name == name {
			return f
		}
	}
	panic("metrics: no family " + name)
}

// These are the labels of all metrics.
const (
	labelNamespace = "namespace"
	labelName      = "name"
	labelAppID     = "appid"
	labelMode      = "mode"
	labelTarget    = "secret"
	labelType      = "type"
	labelStatus    = "status"
	labelReason    = "reason"
	labelErrcode   = "errcode"
	labelTicket    = "ticket"
	labelResult    = "result"
	labelEndpoint  = "endpoint"
	labelHost      = "host"
	labelOutcome   = "outcome"
	labelVersion   = "version"
)
