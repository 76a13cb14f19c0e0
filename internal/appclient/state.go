// SPDX-License-Identifier: Apache-2.0

package appclient

import (
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/gate"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
)

// state is what a process remembers of a client beyond the API server.
type state struct {
	uid types.UID
	// gate knows what the caches have to reach. Losing it costs a conflict.
	gate gate.Gate
	// held is what the Secret holds. Losing it costs a GET.
	held held
	// unsaved is the key of a Secret that this process wrote, until the status names it; nil for none. Losing it costs a new key.
	unsaved *v1alpha1.ClientKeyStatus
	// handled are the requests that had their attempts when the client was first seen, or with unsaved, until the status names them.
	handled v1alpha1.HandledClientRequests
	// repairs paces the repair of a Secret that somebody keeps rewriting.
	repairs target.Repairs
	// refusedReferences is the generation whose change of the owner reference the API server refused. Losing it costs a request.
	refusedReferences int64
	// behind is the number of passes in a row that ended because a cache was behind, or a write met a conflict. Losing it costs a few of them.
	behind int
	// failingSince is when writes of the Secret began to fail; zero while they work. Losing it delays what the status tells by a minute.
	failingSince time.Time
}

// stateOf returns what is remembered of a client.
func (r *Reconciler) stateOf(c *v1alpha1.WeChatAppClient) *state {
	r.mu.Lock()
	defer r.mu.Unlock()
	name := client.ObjectKeyFromObject(c)
	if s := r.states[name]; s != nil && s.uid == c.UID {
		return s
	}
	s := &state{uid: c.UID, handled: allHandled(c, v1alpha1.HandledClientRequests{})}
	r.states[name] = s
	return s
}

// find returns what is remembered under a name; nil for nothing.
func (r *Reconciler) find(name types.NamespacedName) *state {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.states[name]
}

func (r *Reconciler) forget(name types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.states, name)
}
