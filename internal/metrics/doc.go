// SPDX-License-Identifier: Apache-2.0

// Package metrics provides the operator's metrics for Prometheus.
//
// The state of each resource is computed at each scrape from the manager's cache, so that a deleted resource leaves no series behind.
// Events are counted without naming resources, because an operator with 10,000 of them would otherwise keep as many counters for ever.
package metrics
