// SPDX-License-Identifier: Apache-2.0

// Package e2e tests the operator as its users have it: its image, installed by its chart on a cluster with a kubelet, and pods that
// mount the Secret and use the token. make e2e runs it; it takes any cluster by its KUBECONFIG.
package e2e
