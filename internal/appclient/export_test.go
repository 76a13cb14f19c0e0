// SPDX-License-Identifier: Apache-2.0

package appclient

import (
	"fmt"

	"k8s.io/apimachinery/pkg/types"
)

// Kept returns about how many bytes are remembered of a client's Secret. The operator must have stopped.
func (r *Reconciler) Kept(name types.NamespacedName) int {
	return len(fmt.Sprintf("%+v", r.find(name).held))
}
