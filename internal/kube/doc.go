// SPDX-License-Identifier: Apache-2.0

// Package kube is how the operator and the gateway reach the API server: with bounds in time, and so that neither an API server that is
// away nor a namespace that is gone keeps them from starting.
package kube
