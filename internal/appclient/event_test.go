// SPDX-License-Identifier: Apache-2.0

package appclient

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/events"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// The API server refuses an event whose note has more than 1024 bytes, as one with long names may have.
func TestLongNote(t *testing.T) {
	recorder := events.NewFakeRecorder(1)
	p := &pass{Reconciler: &Reconciler{Options: Options{Events: recorder}}, client: &v1alpha1.WeChatAppClient{}}
	p.event(notice{corev1.EventTypeWarning, v1alpha1.EventKeySecretConflict, strings.Repeat("x", 2000)})
	if n := strings.Count(<-recorder.Events, "x"); n < 900 || n > 1024 {
		t.Errorf("the note has %d bytes", n)
	}
}
