// SPDX-License-Identifier: Apache-2.0

// Package delivery speeds up the delivery of a new token to the pods that mount its Secret, by annotating them.
//
// The kubelet updates the volumes of a pod about once a minute, and at once when the pod itself changes. An annotation changes the
// pod and restarts nothing. Without it, the token arrives a little later.
package delivery
