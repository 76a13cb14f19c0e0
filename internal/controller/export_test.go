// SPDX-License-Identifier: Apache-2.0

package controller

// AddIndexes registers the indexes without the controller, for a test that makes the passes itself.
var AddIndexes = (*Reconciler).addIndexes

// LookSoon is the time after which a pass that found a cache behind is repeated.
const LookSoon = lookSoon
