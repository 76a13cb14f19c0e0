// SPDX-License-Identifier: Apache-2.0

// Package docs_test checks the documents: links, anchors, manifests, and the tests and programs that they name.
package docs_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// root is the repository, seen from this folder.
const root = "../.."

// page is one Markdown file.
type page struct {
	path    string // from the root of the repository
	anchors map[string]bool
	links   []link
	blocks  []block
}

type link struct {
	line   int
	target string
}

// block is a fenced block of code.
type block struct {
	line int
	lang string
	text string
	// fragment is the reason that an HTML comment above the block gives for what follows not being whole.
	fragment string
}

// where is how a person finds a line.
func (p page) where(line int) string { return fmt.Sprintf("%s:%d", p.path, line) }

// pages are all Markdown files of the repository.
func pages(t *testing.T) []page {
	t.Helper()
	var out []page
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && slices.Contains([]string{".git", "bin", "dist", "node_modules", "testdata"}, name) {
			return filepath.SkipDir
		}
		if d.IsDir() || filepath.Ext(name) != ".md" {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		out = append(out, parse(filepath.ToSlash(rel), string(text)))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

var (
	fence       = regexp.MustCompile("^( *)(```+|~~~+) *([^ `]*)")
	heading     = regexp.MustCompile(`^#{1,6} +(.*?)(?: +#+)?$`)
	htmlAnchor  = regexp.MustCompile(`<a (?:id|name)="([^"]+)"`)
	inlineLink  = regexp.MustCompile(`\]\(<?([^)<>\s]+)>?(?: +"[^"]*")?\)`)
	codeSpan    = regexp.MustCompile("`[^`]*`")
	linkText    = regexp.MustCompile(`!?\[([^\]]*)\]\([^)]*\)`)
	fragmentTag = regexp.MustCompile(`^ *<!-- fragment: (.*?) *-->$`)
)

// parse reads as much of Markdown as the documents use.
func parse(path, text string) page {
	p := page{path: path, anchors: map[string]bool{}}
	lines := strings.Split(text, "\n")
	fragment := ""
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		if open := fence.FindStringSubmatch(line); open != nil {
			b := block{line: i + 1, lang: open[3], fragment: fragment}
			var body []string
			for i++; i < len(lines) && strings.TrimSpace(lines[i]) != open[2]; i++ {
				body = append(body, strings.TrimPrefix(lines[i], open[1]))
			}
			b.text = strings.Join(body, "\n") + "\n"
			p.blocks = append(p.blocks, b)
			fragment = ""
			continue
		}
		if tag := fragmentTag.FindStringSubmatch(line); tag != nil {
			fragment = tag[1]
		} else if strings.TrimSpace(line) != "" {
			fragment = ""
		}
		if h := heading.FindStringSubmatch(line); h != nil {
			p.addAnchor(slug(h[1]))
		}
		for _, a := range htmlAnchor.FindAllStringSubmatch(line, -1) {
			p.addAnchor(a[1])
		}
		for _, l := range inlineLink.FindAllStringSubmatch(codeSpan.ReplaceAllString(line, "``"), -1) {
			p.links = append(p.links, link{line: i + 1, target: l[1]})
		}
	}
	return p
}

// addAnchor numbers a second heading of the same name as GitHub does.
func (p *page) addAnchor(name string) {
	unique := name
	for n := 1; p.anchors[unique]; n++ {
		unique = fmt.Sprintf("%s-%d", name, n)
	}
	p.anchors[unique] = true
}

// slug is the anchor that GitHub gives a heading.
func slug(title string) string {
	title = linkText.ReplaceAllString(title, "$1")
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
			return unicode.ToLower(r)
		case r == ' ':
			return '-'
		}
		return -1
	}, strings.TrimSpace(title))
}
