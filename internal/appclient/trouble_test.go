// SPDX-License-Identifier: Apache-2.0

package appclient_test

import (
	"context"
	"testing"
	"time"

	"github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// patch sets what is called in place of each patch of a Secret; nil for none.
func (w *world) patch(f patching) {
	if f == nil {
		w.patching.Store(nil)
		return
	}
	w.patching.Store(&f)
}

// A process that is told to end while it writes a new key writes the status as well. Otherwise the next one would do it once more.
func TestStopDuringARotation(t *testing.T) {
	for _, request := range []string{rotateAt, revokeAt} {
		t.Run(request, func(t *testing.T) {
			w := newWorld(t)
			first := w.ready()
			w.patch(func(ctx context.Context, body client.Patch, send func(client.Patch) error) error {
				err := send(body)
				w.operator.cancel()
				select {
				case <-ctx.Done():
				case <-time.After(time.Second): // long enough for the pass to hear of it
				}
				return err
			})
			w.ask(request, "1")
			w.Eventually(func() string { return string(w.secret().Data["app_secret"]) }).ShouldNot(gomega.Equal(first))
			w.operator.stop()
			w.patch(nil)
			written := string(w.secret().Data["app_secret"])
			if now, _ := w.good(); now != written || w.appClient("api").Status.HandledRequests == nil {
				t.Error("the status does not name the new key")
			}
			w.start()
			w.touch()
			if now, _ := w.good(); now != written {
				t.Error("it was done again")
			}
		})
	}
}
