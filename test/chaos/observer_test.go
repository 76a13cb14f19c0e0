// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// version is what a Secret held under one key from a moment on.
type version struct {
	at time.Time
	// token is the data: a token, or a ticket.
	token string
	gone  bool
}

// history is what a Secret held under one key, oldest first.
type history []version

// at is what it held at a moment; false before it was there.
func (h history) at(t time.Time) (version, bool) {
	for _, v := range slices.Backward(h) {
		if !v.at.After(t) {
			return v, true
		}
	}
	return version{}, false
}

// span is what it held while it was judged for one resource: in the tests, targets change hands.
func (h history) span(from, until time.Time) (out history) {
	for _, v := range h {
		if !v.at.Before(from) && v.at.Before(until) {
			out = append(out, v)
		}
	}
	return out
}

// mounted is what a volume shows that was synced at a moment: it keeps its content when the Secret is deleted.
func (h history) mounted(t time.Time) (version, bool) {
	for _, v := range slices.Backward(h) {
		if !v.at.After(t) && !v.gone {
			return v, true
		}
	}
	return version{}, false
}

// observer reads every Secret by a watch of its own, which no fault of the tests reaches.
type observer struct {
	// keys are those of the data that it records.
	keys []string

	mu   sync.Mutex
	seen map[place]history
}

// place is a key of a Secret's data.
type place struct {
	types.NamespacedName

	key string
}

func newObserver() *observer {
	o := &observer{keys: []string{tokenKey}, seen: map[place]history{}}
	for _, kind := range v1alpha1.TicketTypes() {
		o.keys = append(o.keys, ticketKey(kind))
	}
	return o
}

// ticketKey is the key of the data under which a ticket is.
func ticketKey(kind v1alpha1.TicketType) string { return v1alpha1.TicketSpec{Type: kind}.KeyName() }

// run watches until the context ends. A watch that breaks is begun anew with a list, so nothing stays unseen.
func (o *observer) run(ctx context.Context, c kubernetes.Interface) {
	for ctx.Err() == nil {
		if err := o.follow(ctx, c); err != nil && ctx.Err() == nil {
			time.Sleep(50 * time.Millisecond)
		}
	}
}

func (o *observer) follow(ctx context.Context, c kubernetes.Interface) error {
	list, err := c.CoreV1().Secrets("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	there := map[types.NamespacedName]bool{}
	for i := range list.Items {
		there[o.note(&list.Items[i], false)] = true
	}
	o.mu.Lock()
	for p, h := range o.seen {
		if !there[p.NamespacedName] && !h[len(h)-1].gone {
			o.seen[p] = append(h, version{at: time.Now(), gone: true})
		}
	}
	o.mu.Unlock()
	w, err := c.CoreV1().Secrets("").Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		return err
	}
	defer w.Stop()
	for e := range w.ResultChan() {
		if s, ok := e.Object.(*corev1.Secret); ok {
			o.note(s, e.Type == watch.Deleted)
		}
	}
	return nil
}

func (o *observer) note(s *corev1.Secret, gone bool) types.NamespacedName {
	name := types.NamespacedName{Namespace: s.Namespace, Name: s.Name}
	now := time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, key := range o.keys {
		p, v := place{name, key}, version{at: now, token: string(s.Data[key]), gone: gone}
		h := o.seen[p]
		never := len(h) == 0 && v.token == "" && key != tokenKey // most Secrets hold no ticket
		if !never && (len(h) == 0 || h[len(h)-1].token != v.token || h[len(h)-1].gone != v.gone) {
			o.seen[p] = append(h, v)
		}
	}
	return name
}

// history is what a Secret held as its token.
func (o *observer) history(name types.NamespacedName) history { return o.historyOf(name, tokenKey) }

func (o *observer) historyOf(name types.NamespacedName, key string) history {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.seen[place{name, key}])
}
