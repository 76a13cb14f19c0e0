// SPDX-License-Identifier: Apache-2.0

package account

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"
)

// Hints are the tokens that a gateway saw WeChat refuse, by the resource whose Secret has them. A hint is no proof, because whoever may
// write the status of a client may give one. The zero value has none, and is safe for concurrent use.
type Hints struct {
	mu      sync.Mutex
	refused map[types.NamespacedName]string
}

// Set records the fingerprint of the token that was refused. An empty one removes the hint, because WeChat was asked since.
func (h *Hints) Set(resource types.NamespacedName, fingerprint string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if fingerprint == "" {
		delete(h.refused, resource)
		return
	}
	if h.refused == nil {
		h.refused = map[types.NamespacedName]string{}
	}
	h.refused[resource] = fingerprint
}

// Has reports whether the token with this fingerprint was refused since WeChat was asked last. An empty fingerprint is that of no token.
func (h *Hints) Has(resource types.NamespacedName, fingerprint string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return fingerprint != "" && h.refused[resource] == fingerprint
}
