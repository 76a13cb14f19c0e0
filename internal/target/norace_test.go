// SPDX-License-Identifier: Apache-2.0

//go:build !race

package target

// underRace reports that the race detector is linked in, with which small texts take more memory.
const underRace = false
