// SPDX-License-Identifier: Apache-2.0

package intern

import (
	"strconv"
	"strings"
	"testing"
	"unsafe"
)

func TestShare(t *testing.T) {
	type reason string
	pool := &Pool{}
	first, second := reason(strings.Clone("TokenValid")), reason(strings.Clone("TokenValid"))
	Share(pool, &first)
	Share(pool, &second)
	if first != "TokenValid" || second != first {
		t.Errorf("got %q and %q", first, second)
	}
	if unsafe.StringData(string(first)) != unsafe.StringData(string(second)) {
		t.Error("two equal strings have two copies")
	}
}

func TestShareNothing(t *testing.T) {
	text := "shop"
	Share(nil, &text)
	if text != "shop" {
		t.Errorf("got %q", text)
	}
}

func TestPoolIsBounded(t *testing.T) {
	pool := &Pool{}
	for i := range most + 10 {
		text := strconv.Itoa(i)
		if Share(pool, &text); text != strconv.Itoa(i) {
			t.Fatalf("%d became %s", i, text)
		}
	}
	if len(pool.known) != most {
		t.Errorf("the pool holds %d strings", len(pool.known))
	}
}
