// SPDX-License-Identifier: Apache-2.0

package request_test

import (
	"slices"
	"testing"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/request"
)

// TestNames checks each kind of request against the names that users write and see.
func TestNames(t *testing.T) {
	type row struct {
		annotation, event string
		handled           v1alpha1.HandledRequests
	}
	want := map[refresh.RequestKind]row{
		"check":   {"wechat.apptoken.dev/check-requested-at", "RequestedCheck", v1alpha1.HandledRequests{Check: "x"}},
		"refresh": {"wechat.apptoken.dev/refresh-requested-at", "RequestedRefresh", v1alpha1.HandledRequests{Refresh: "x"}},
		"revoke":  {"wechat.apptoken.dev/revoke-requested-at", "RequestedRevoke", v1alpha1.HandledRequests{Revoke: "x"}},
	}
	kinds := refresh.RequestKinds()
	if len(kinds) != len(want) {
		t.Errorf("there are %d kinds, want %d", len(kinds), len(want))
	}
	for _, kind := range kinds {
		got := row{annotation: request.Annotation(kind), event: request.Event(kind)}
		*request.Handled(&got.handled, kind) = "x"
		if got != want[kind] {
			t.Errorf("%s: got %+v, want %+v", kind, got, want[kind])
		}
		if !slices.Contains(request.Annotations(), got.annotation) {
			t.Errorf("%s: its annotation is not in the list", kind)
		}
	}
	if n := len(request.Annotations()); n != len(want) {
		t.Errorf("the list has %d annotations, want %d", n, len(want))
	}
}
