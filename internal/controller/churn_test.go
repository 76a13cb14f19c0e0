// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// counts are what a recorder keeps by the UIDs of resources.
type counts struct {
	unrecorded

	checked map[types.UID]bool
	gone    int
}

func (c *counts) Checked(uid types.UID, _ time.Time) { c.checked[uid] = true }

func (c *counts) Gone(uid types.UID) {
	delete(c.checked, uid)
	c.gone++
}

// Resources that come and go leave nothing with the recorder, whether or not the operator sees that a name was free in between.
func TestChurnLeavesNoCounts(t *testing.T) {
	s := newSimulation(t, v1alpha1.ModeStable)
	recorded := &counts{checked: map[types.UID]bool{}}
	s.reconciler.Recorder = recorded
	for _, seen := range []bool{true, false, true} {
		s.run(10 * time.Minute)
		r := s.resource()
		if len(recorded.checked) != 1 || !recorded.checked[r.UID] {
			t.Fatalf("recorded are %v, want %s", recorded.checked, r.UID)
		}
		s.removeTarget() // the garbage collector does
		if err := s.Delete(s.Context(), r); err != nil {
			t.Fatal(err)
		}
		if seen {
			s.run(time.Second)
			if len(recorded.checked) > 0 {
				t.Errorf("of a resource that is gone, %v are kept", recorded.checked)
			}
		}
		next := resourceNamed("shop", v1alpha1.ModeStable)
		next.UID = uuid.NewUUID()
		if err := s.Create(s.Context(), next); err != nil {
			t.Fatal(err)
		}
		s.wake("shop")
	}
	if s.run(time.Minute); recorded.gone != 3 || len(recorded.checked) != 1 {
		t.Errorf("%d are gone, and %v are kept", recorded.gone, recorded.checked)
	}
}
