// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"net/http"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat"
)

const (
	// newerWait is how long a call whose token WeChat refused waits for another one.
	newerWait = 3 * time.Second
	// maxWaiters and maxWaitersPerClient bound how many calls wait at the same time. The others get WeChat's answer at once.
	maxWaiters          = 1000
	maxWaitersPerClient = 100
)

// newer returns the token to repeat a call with, if WeChat refused the one that it was sent with. It tells the operator of the refusal. It
// returns zero if WeChat's answer is to be passed on, which is also the case if no other token comes in time.
func (x *exchange) newer(ctx context.Context, res *http.Response) token.Value {
	client := x.call.Client
	if x.token.IsZero() || client == nil || !wechat.RefusesToken(x.call.Errcode) {
		return token.Value{}
	}
	policy, _ := x.relay.source.Policy()
	if known := policy.ByUID(client.UID); known != nil && known.Account.Token == x.token {
		x.relay.hint(known, x.token.Fingerprint())
	}
	if x.once || !x.body.again() || !x.relay.waiters.enter(client.UID) {
		return token.Value{}
	}
	defer x.relay.waiters.leave(client.UID)
	if x.ended != nil {
		_ = res.Body.Close() // nothing is left to read, and others can use the connection
	}
	begun := time.Now()
	wait, cancel := context.WithTimeout(ctx, newerWait)
	defer cancel()
	next := x.relay.await(wait, client, x.token)
	x.call.Store += time.Since(begun)
	if next.IsZero() && ctx.Err() != nil {
		_ = res.Body.Close()
		x.gone()
	}
	return next
}

// await waits until the store has a valid token of the client's account that is not the refused one. It returns zero if ctx is done before,
// or if the client may no longer call.
func (r *Relay) await(ctx context.Context, client *Client, refused token.Value) token.Value {
	for {
		policy, replaced := r.source.Policy()
		known := policy.ByUID(client.UID)
		if known == nil || known.Account.AppID != client.Account.AppID {
			return token.Value{}
		}
		if a := known.Account; a.Token != refused && a.Valid(r.now()) {
			return a.Token
		}
		select {
		case <-replaced:
		case <-ctx.Done():
			return token.Value{}
		}
	}
}

// waiters counts the calls that wait for another token.
type waiters struct {
	mu       sync.Mutex
	total    int
	byClient map[types.UID]int
}

func newWaiters() *waiters { return &waiters{byClient: map[types.UID]int{}} }

// enter reports whether one more call of the client may wait.
func (w *waiters) enter(client types.UID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.total >= maxWaiters || w.byClient[client] >= maxWaitersPerClient {
		return false
	}
	w.total++
	w.byClient[client]++
	return true
}

func (w *waiters) leave(client types.UID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.total--
	if w.byClient[client]--; w.byClient[client] == 0 {
		delete(w.byClient, client)
	}
}
