// SPDX-License-Identifier: Apache-2.0

package silence

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	// window is the length of the shortest piece of a needle that counts; no word of a log is that random.
	window = 12
	// stride of the search: a run of window+stride-1 characters of a needle cannot be missed.
	stride = 4
)

// formsOf are the clothes in which a value may leave the process.
func formsOf(value string) map[string]string {
	quoted, err := json.Marshal(value)
	if err != nil {
		panic(err) // a string always encodes
	}
	var plain strings.Builder
	encoder := json.NewEncoder(&plain)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		panic(err)
	}
	out := map[string]string{
		"raw": value, "query": url.QueryEscape(value), "path": url.PathEscape(value),
		"json": inside(string(quoted)), "json without HTML": inside(strings.TrimSpace(plain.String())),
		"go": inside(strconv.Quote(value)), "hex": hex.EncodeToString([]byte(value)),
	}
	twice, err := json.Marshal(string(quoted))
	if err != nil {
		panic(err)
	}
	out["json in json"] = inside(string(twice))
	for name, encoding := range map[string]*base64.Encoding{"base64": base64.StdEncoding, "base64url": base64.URLEncoding} {
		for shift := range 3 { // its place in a longer text decides what it looks like
			text := encoding.EncodeToString([]byte(strings.Repeat(".", shift) + value))
			out[name+" "+strconv.Itoa(shift)] = strings.TrimRight(text[shift*2:], "=")
		}
	}
	return out
}

func inside(quoted string) string { return quoted[1 : len(quoted)-1] }

// index knows every piece of the needles in every form.
type index map[string]string

func newIndex(needles ...string) index {
	x := index{}
	for _, needle := range needles {
		for form, text := range formsOf(needle) {
			for i := range len(text) - window + 1 {
				x[text[i:i+window]] = form
			}
		}
	}
	return x
}

// find tells in which forms a text holds a needle, and where it holds the first.
func (x index) find(text string) (forms []string, first int) {
	seen := map[string]bool{}
	first = -1
	for i := 0; i+window <= len(text); i += stride {
		if form, found := x[text[i:i+window]]; found {
			seen[form] = true
			if first < 0 {
				first = i
			}
		}
	}
	return slices.Sorted(maps.Keys(seen)), first
}

func TestFind(t *testing.T) {
	x := newIndex(needle, appSecret)
	for _, value := range []string{needle, appSecret} {
		for form, text := range formsOf(value) {
			for shift := range stride {
				for name, hay := range map[string]string{
					"alone": text, "in a log": strings.Repeat("x", shift) + ` {"a":"` + text + `"} `,
					"cut at the end": strings.Repeat("x", shift) + text[:window+stride], "cut at the start": strings.Repeat("x", shift) + text[len(text)-window-stride:],
				} {
					if forms, at := x.find(hay); len(forms) == 0 || at < 0 {
						t.Errorf("%s, %s, %d: not found", form, name, shift)
					}
				}
			}
		}
	}
	for _, innocent := range []string{"", "short", strings.Repeat("the quick brown fox jumps over the lazy dog ", 50), needle[:window-1]} {
		if forms, _ := x.find(innocent); len(forms) > 0 {
			t.Errorf("%.30q: found %v", innocent, forms)
		}
	}
}
