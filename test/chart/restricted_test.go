// SPDX-License-Identifier: Apache-2.0

package chart

// restricted are labels that make the API server refuse pods that are not restricted.
var restricted = map[string]string{
	"pod-security.kubernetes.io/enforce":         "restricted",
	"pod-security.kubernetes.io/enforce-version": "latest",
}
