// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

// TestLinks: what a link inside the repository points to is there, with its anchor.
func TestLinks(t *testing.T) {
	all := map[string]page{}
	for _, p := range pages(t) {
		all[p.path] = p
	}
	checked := 0
	for _, p := range all {
		for _, l := range p.links {
			if strings.Contains(l.target, "://") || strings.HasPrefix(l.target, "mailto:") {
				continue
			}
			checked++
			if problem := follow(all, p, l.target); problem != "" {
				t.Errorf("%s: link to %s: %s", p.where(l.line), l.target, problem)
			}
		}
	}
	if checked < 50 {
		t.Errorf("only %d links inside the repository were found: does the checker still read them?", checked)
	}
}

// follow returns what is wrong with a link.
func follow(all map[string]page, from page, target string) string {
	file, anchor, hasAnchor := strings.Cut(target, "#")
	to := from.path
	if file != "" {
		to = path.Join(path.Dir(from.path), file)
		if to == ".." || strings.HasPrefix(to, "../") {
			return "it leaves the repository"
		}
		if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(to))); err != nil {
			return "there is no such file"
		}
	}
	if hasAnchor && !all[to].anchors[anchor] {
		return "there is no such heading"
	}
	return ""
}

// TestFollow: the checker finds what it is for.
func TestFollow(t *testing.T) {
	from := parse("docs/a.md", "# One `two` (three)\n\n## Same\n\n## Same\n\n### 40164 / 61004：IP 不在“白名单”（Stable）\n\n[x](a.md#nowhere \"title\") `[y](code.md)`\n\n```sh\n# no heading\n```\n")
	all := map[string]page{"docs/a.md": from, "README.md": {}}
	if len(from.links) != 1 || from.links[0] != (link{line: 9, target: "a.md#nowhere"}) {
		t.Errorf("links: %+v", from.links)
	}
	for target, good := range map[string]bool{
		"#one-two-three":              true,
		"#same":                       true,
		"#same-1":                     true,
		"#same-2":                     false,
		"#no-heading":                 false,
		"#40164--61004ip-不在白名单stable": true,
		"#40164--61004：ip-不在“白名单”stable": false,
		"../README.md":        true,
		"../README.md#none":   false,
		"../missing.md":       false,
		"../../outside":       false,
		"reference.md#flags":  false, // not among these pages
		"../internal/wechat/": true,
	} {
		if problem := follow(all, from, target); (problem == "") != good {
			t.Errorf("%s: %q", target, problem)
		}
	}
}

// TestIndex: docs/README.md leads to every page of docs and of docs/zh, and to the README of each folder below it.
func TestIndex(t *testing.T) {
	indexed := map[string]bool{}
	for _, p := range pages(t) {
		if p.path != "docs/README.md" {
			continue
		}
		for _, l := range p.links {
			file, _, _ := strings.Cut(l.target, "#")
			indexed[path.Join("docs", file)] = true
		}
	}
	for _, p := range pages(t) {
		below := strings.HasPrefix(p.path, "docs/") && path.Base(p.path) == "README.md"
		if (path.Dir(p.path) == "docs" || path.Dir(p.path) == "docs/zh" || below) && p.path != "docs/README.md" && !indexed[p.path] {
			t.Errorf("%s is not in docs/README.md", p.path)
		}
	}
}
