// SPDX-License-Identifier: Apache-2.0

// Package metrics is what the operator tells Prometheus. What belongs to a resource is computed at each scrape from the
// manager's cache, so that a deleted resource leaves no series behind. What happened is counted, without naming
// resources: an operator of 10,000 of them would otherwise keep as many counters for ever.
package metrics
