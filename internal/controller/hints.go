// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// sighting says that a token was refused.
type sighting struct {
	fingerprint string
	at          time.Time
}

// Hint lets the next pass check the stored token of a WeChatAppToken, if it has this fingerprint, because a gateway saw WeChat refuse it.
// That is no proof of anything: whoever can write a hint can cause one check in 10 s for each account.
func (r *Reconciler) Hint(ctx context.Context, name types.NamespacedName, fingerprint string) {
	if state := r.states.find(name); state != nil {
		state.shared.mu.Lock()
		state.shared.refused = sighting{fingerprint, r.WeChat.Now()}
		state.shared.mu.Unlock()
		r.wake.send(ctx, name)
	}
}

// refusedSince reports whether a gateway saw WeChat refuse the token after the last call about it.
func (s *shared) refusedSince(fingerprint string, called time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused.fingerprint == fingerprint && s.refused.at.After(called)
}
