// SPDX-License-Identifier: Apache-2.0

// Package intern lets the objects of a cache share strings that many of them contain, such as reasons and namespaces. A decoder makes
// a copy for each object, which adds up with thousands of objects.
package intern

import (
	"strings"
	"sync"
)

// most is the number of different strings in a full Pool. Later strings are not shared, so that nobody can make a Pool grow without
// end.
const most = 4096

// Pool holds one copy of each string that is shared. The zero value is ready for use, and a nil Pool shares nothing. A Pool is safe
// for concurrent use.
type Pool struct {
	mu    sync.Mutex
	known map[string]string
}

// Share replaces a string by the pool's copy of it.
func Share[S ~string](p *Pool, text *S) {
	if p != nil && *text != "" {
		*text = S(p.copyOf(string(*text)))
	}
}

func (p *Pool) copyOf(text string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if known, found := p.known[text]; found {
		return known
	}
	if len(p.known) >= most {
		return text
	}
	if p.known == nil {
		p.known = map[string]string{}
	}
	own := strings.Clone(text) // text may be part of a larger string, which would stay in memory
	p.known[own] = own
	return own
}
