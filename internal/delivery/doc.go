// SPDX-License-Identifier: Apache-2.0

// Package delivery tells the pods that mount a Secret of the new token in it.
//
// A kubelet brings the volumes of a pod up to date about once a minute, and at once when the pod itself changes. So an
// annotation on the pod, which restarts nothing, takes the wait away. It is never needed for a token to arrive.
package delivery
