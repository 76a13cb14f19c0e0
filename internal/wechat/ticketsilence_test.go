// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// TestTicketWithoutAnswer checks that calls for tickets that nobody answers keep but one caller waiting, so that tokens come in time.
func TestTicketWithoutAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var answers atomic.Bool
		c := bubble(t, Options{}, &host{handler: func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == pathTicket && !answers.Load() {
				hanging(w, r)
			}
			answering(w, r)
		}})
		_, silence := ticketOf(t, c)
		_ = wantError(t, silence, token.Transient, v1alpha1.ReasonUnreachable, 0)
		// ask returns how many of so many callers wait.
		ask := func(callers int) int32 {
			var waited atomic.Int32
			var all sync.WaitGroup
			for range callers {
				all.Go(func() {
					began := time.Now()
					if _, err := ticketOf(t, c); err == nil || err.Error() != silence.Error() {
						t.Errorf("error %v, want that of the call that was made: %v", err, silence)
					}
					if time.Since(began) > 0 {
						waited.Add(1)
					}
				})
			}
			began := time.Now()
			if err := c.ProbeToken(t.Context(), token.NewValue(storedToken)); err != nil || time.Since(began) > time.Second {
				t.Errorf("another call took %v, error %v", time.Since(began), err)
			}
			all.Wait()
			return waited.Load()
		}
		for range 2 { // the second time, the caller that waited the first time is gone
			if n := ask(20); n != 1 {
				t.Errorf("%d callers waited, want 1", n)
			}
		}
		answers.Store(true)
		if _, err := ticketOf(t, c); err != nil {
			t.Errorf("a call that is answered: %v", err)
		}
		answers.Store(false)
		if n := ask(20); n != 20 {
			t.Errorf("%d callers waited after an answer, want 20", n)
		}
	})
}

// TestTicketRefusalIsAnAnswer checks that an errcode, and the end of the caller's own context, hold no other call back.
func TestTicketRefusalIsAnAnswer(t *testing.T) {
	c := offline(t, `{"errcode":48001,"errmsg":"api unauthorized"}`)
	_, err := ticketOf(t, c)
	_ = wantError(t, err, token.Action, v1alpha1.ReasonUnsupportedAccount, 48001)
	if c.ticketSilence.Load() != nil {
		t.Error("an errcode counts as no answer")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Ticket(ctx, token.NewValue(storedToken), v1alpha1.TicketJSAPI); !errors.Is(err, context.Canceled) || c.ticketSilence.Load() != nil {
		t.Errorf("a call that its caller ended counts as one without an answer: %v", err)
	}
}
