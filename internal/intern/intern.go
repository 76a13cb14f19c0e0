// SPDX-License-Identifier: Apache-2.0

// Package intern lets the objects of a cache share strings that many of them hold, such as reasons and namespaces. A decoder makes
// a copy for each object, and with thousands of them that adds up.
package intern

import (
	"strings"
	"sync"
)

// most is how many different strings a Pool keeps, so that nobody can make it grow without end. Those that come later are not shared.
const most = 4096

// Pool holds strings that are worth sharing. The zero value is ready; a nil one shares nothing. It may be used by several
// goroutines.
type Pool struct {
	mu    sync.Mutex
	known map[string]string
}

// Share replaces the string by the copy that the pool holds of it.
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
	own := strings.Clone(text) // text may be a part of something large
	p.known[own] = own
	return own
}
