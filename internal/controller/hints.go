// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"

	"k8s.io/apimachinery/pkg/types"
)

// Hint lets the next pass check the stored token of a WeChatAppToken, if it has this fingerprint, because a gateway saw WeChat refuse it.
// That is no proof of anything: whoever can write a hint can cause one check in 10 s for each account.
func (r *Reconciler) Hint(ctx context.Context, name types.NamespacedName, fingerprint string) {
	if state := r.states.find(name); state != nil {
		state.shared.setRefused(fingerprint)
		r.wake.send(ctx, name)
	}
}

// setRefused records the token that a gateway saw WeChat refuse; empty for none, because WeChat was asked since.
func (s *shared) setRefused(fingerprint string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard = heard{delivered: s.heard.delivered, refused: fingerprint}
}

// isRefused reports whether a gateway saw WeChat refuse the token with this fingerprint since WeChat was asked last.
func (s *shared) isRefused(fingerprint string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heard.refused == fingerprint && fingerprint != ""
}
