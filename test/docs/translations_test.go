// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	// follows is the first line of a translation: the English page and the first 16 hex digits of its SHA-256.
	follows = regexp.MustCompile(`^<!-- follows (\S+) sha256:([0-9a-f]{16}) -->\n`)
	// outdated is the line that tells readers of a section that it does not have the text of the English one yet.
	outdated = regexp.MustCompile(`(?m)^本节尚未更新，请以\[英文版\]\([^)]+\)为准。<!-- outdated -->$`)

	fenced      = regexp.MustCompile("(?ms)^ *```.*?^ *```$")
	htmlComment = regexp.MustCompile(`(?s)<!--.*?-->|<a id="[^"]*"></a>`)
	linkTarget  = regexp.MustCompile(`\]\([^)]*\)`)
	codeComment = regexp.MustCompile(`(?m)[ \t]*(?://|#)(?: .*)?$`)

	errcode = regexp.MustCompile(`\b[4568]\d{4}\b`)
	flag    = regexp.MustCompile(`(?:^|[^\w-])(--[a-z][a-z-]+)`)
	number  = regexp.MustCompile(`\d+(?:[.,:]\d+)*`)
	// camelCase is how kinds, fields and reasons are written.
	camelCase = regexp.MustCompile(`\b[A-Za-z][a-z0-9]*(?:[A-Z]+[a-z0-9]{2,})+\b`)
)

// drawn is the text in a drawing.
var drawn = regexp.MustCompile(`>[^<]*<`)

// translationOf returns the path of the Chinese page for an English one, or of a drawing, whether or not it exists.
func translationOf(english string) string {
	if path.Dir(english) == "." {
		return strings.TrimSuffix(english, ".md") + ".zh-CN.md"
	}
	return path.Join(path.Dir(english), "zh", path.Base(english))
}

// TestTranslations checks that each Chinese page follows the English page as it is now, and has its code blocks, headings,
// names, numbers and links.
func TestTranslations(t *testing.T) {
	texts := map[string]string{}
	drawings, err := filepath.Glob(filepath.Join(root, "docs", "images", "zh", "*.svg"))
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, p := range pages(t) {
		files = append(files, p.path)
	}
	for _, drawing := range drawings {
		base := filepath.Base(drawing)
		files = append(files, "docs/images/"+base, "docs/images/zh/"+base)
	}
	for _, name := range files {
		texts[name] = text(t, name)
	}
	translated := 0
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		if path.Base(path.Dir(name)) != "zh" && !strings.HasSuffix(name, ".zh-CN.md") {
			continue
		}
		translated++
		for _, problem := range checkTranslation(texts, name) {
			t.Error(problem)
		}
	}
	if translated < 5 {
		t.Errorf("only %d translations were found: does the test still read them?", translated)
	}
}

// checkTranslation returns what is wrong with the translation name, given the texts of all pages by their paths.
func checkTranslation(texts map[string]string, name string) []string {
	m := follows.FindStringSubmatch(texts[name])
	if m == nil {
		return []string{name + " does not begin with a line like <!-- follows docs/quickstart.md sha256:0123456789abcdef -->"}
	}
	english, ok := texts[m[1]]
	if !ok || translationOf(m[1]) != name {
		return []string{fmt.Sprintf("%s says that it follows %s, whose translation would be %s", name, m[1], translationOf(m[1]))}
	}
	var problems []string
	if now := firstLine(m[1], english); m[0] != now {
		problems = append(problems, fmt.Sprintf("%s follows an older %s. `make docs-zh-status` shows what changed. Bring the page up to date, "+
			"as CONTRIBUTING.md says below \"Translations\", and begin it with:\n%s", name, m[1], now))
	}
	if path.Ext(name) == ".svg" {
		if drawn.ReplaceAllString(english, "><") != drawn.ReplaceAllString(strings.TrimPrefix(texts[name], m[0]), "><") {
			problems = append(problems, name+" differs from "+m[1]+" by more than its texts")
		}
		return problems
	}
	want, got := split(english), split(texts[name])
	if len(want) != len(got) {
		return append(problems, fmt.Sprintf("%s has %d headings, and %s has %d:\n%s", name, len(got)-1, m[1], len(want)-1, headings(want, got)))
	}
	inEnglish := strings.Join(strings.Fields(english), " ")
	for i := range want {
		at := fmt.Sprintf("%s, %q", name, title(got[i]))
		for _, difference := range slices.Concat(
			sameShape(want[i], got[i]),
			sameFacts(want[i], got[i], inEnglish),
			sameLinks(texts, m[1], want[i], got[i]),
		) {
			problems = append(problems, at+": "+difference)
		}
	}
	return problems
}

// firstLine is the first line of a translation of an English page with this text.
func firstLine(english, text string) string {
	digest := fmt.Sprintf("%x", sha256.Sum256([]byte(text)))
	return fmt.Sprintf("<!-- follows %s sha256:%s -->\n", english, digest[:16])
}

// split returns the sections of a page, each with its heading as the first line. The first one is what comes before any heading.
func split(text string) []string {
	sections := []string{""}
	inBlock := false
	for line := range strings.Lines(text) {
		if fence.MatchString(line) {
			inBlock = !inBlock
		}
		if !inBlock && heading.MatchString(strings.TrimSuffix(line, "\n")) {
			sections = append(sections, "")
		}
		sections[len(sections)-1] += line
	}
	return sections
}

func title(section string) string {
	first, _, _ := strings.Cut(section, "\n")
	return first
}

// headings lists the headings of two pages beside each other.
func headings(want, got []string) string {
	var out strings.Builder
	for i := 1; i < max(len(want), len(got)); i++ {
		var w, g string
		if i < len(want) {
			w = title(want[i])
		}
		if i < len(got) {
			g = title(got[i])
		}
		fmt.Fprintf(&out, "\t%s  |  %s\n", w, g)
	}
	return out.String()
}

// sameShape compares what holds for each section, also for an outdated one: the level of its heading and its code blocks.
func sameShape(want, got string) []string {
	var problems []string
	level := func(section string) int { return len(section) - len(strings.TrimLeft(section, "#")) }
	if level(want) != level(got) {
		problems = append(problems, fmt.Sprintf("the level of the heading is not that of %q", title(want)))
	}
	if strings.Count(got, "<!-- outdated -->") != len(outdated.FindAllString(got, -1)) {
		problems = append(problems, "the line that marks it as outdated must be: 本节尚未更新，请以[英文版](…)为准。<!-- outdated -->")
	}
	w, g := parse("", want).blocks, parse("", got).blocks
	if len(w) != len(g) {
		return append(problems, fmt.Sprintf("it has %d code blocks, and the English section has %d", len(g), len(w)))
	}
	for i := range w {
		if w[i].lang != g[i].lang || code(w[i]) != code(g[i]) {
			problems = append(problems, fmt.Sprintf("a code block differs by more than comments; it should be:\n%s", w[i].text))
		}
	}
	return problems
}

// code returns the text of a block without comments and empty lines, which a translation may change. What a program prints has no comments.
func code(b block) string {
	if b.lang == "text" || b.lang == "console" {
		return b.text
	}
	lines := strings.Split(codeComment.ReplaceAllString(b.text, ""), "\n")
	return strings.Join(slices.DeleteFunc(lines, func(line string) bool { return strings.TrimSpace(line) == "" }), "\n")
}

// sameFacts compares what a translation takes over as it is. In a section that is marked as outdated it may differ.
func sameFacts(want, got, inEnglish string) []string {
	if outdated.MatchString(got) {
		return nil
	}
	var problems []string
	w, g := prose(want), prose(got)
	for _, what := range []struct {
		name string
		in   func(prose string) []string
		// equal means that the translation has no others either.
		equal bool
	}{
		{name: "errcode", in: func(s string) []string { return errcode.FindAllString(s, -1) }, equal: true},
		{name: "flag", in: flags, equal: true},
		{name: "number", in: func(s string) []string { return number.FindAllString(s, -1) }},
		{name: "name", in: names},
		{name: "code", in: spans},
	} {
		missing, more := difference(what.in(w), what.in(g))
		for _, fact := range missing {
			problems = append(problems, fmt.Sprintf("the English section has the %s %s", what.name, fact))
		}
		if what.equal {
			for _, fact := range more {
				problems = append(problems, fmt.Sprintf("the English section does not have the %s %s", what.name, fact))
			}
		}
	}
	for _, span := range spans(g) {
		if !strings.Contains(inEnglish, strings.Trim(span, "`")) {
			problems = append(problems, fmt.Sprintf("the English page has %s nowhere", span))
		}
	}
	return problems
}

// prose returns a section without code blocks, HTML and the targets of links, with each white space as one space.
func prose(section string) string {
	section = htmlComment.ReplaceAllString(fenced.ReplaceAllString(section, ""), "")
	return strings.Join(strings.Fields(linkTarget.ReplaceAllString(section, "]")), " ")
}

func spans(prose string) []string { return codeSpan.FindAllString(prose, -1) }

func flags(prose string) []string {
	var out []string
	for _, m := range flag.FindAllStringSubmatch(prose, -1) {
		out = append(out, m[1])
	}
	return out
}

// names returns the names of kinds, fields and reasons, without the s of a plural. WeChat has a Chinese name.
func names(prose string) []string {
	var out []string
	for _, name := range camelCase.FindAllString(prose, -1) {
		if name != "WeChat" {
			out = append(out, strings.TrimSuffix(name, "s"))
		}
	}
	return out
}

// sameLinks compares which files and addresses a section leads to. A link to a page that is translated goes to its translation.
func sameLinks(texts map[string]string, english, want, got string) []string {
	if outdated.MatchString(got) {
		return nil
	}
	missing, more := difference(targets(texts, english, translationOf(english), want), targets(texts, translationOf(english), english, got))
	var problems []string
	for _, target := range missing {
		problems = append(problems, "it lacks a link to "+target)
	}
	for _, target := range more {
		problems = append(problems, "the English section has no link to "+target)
	}
	return problems
}

// targets returns where the links of a section lead, without their anchors, and with the translation in place of an English page
// that has one. A link to the same page in the other language is left out: it is there to change the language.
func targets(texts map[string]string, from, other, section string) []string {
	var out []string
	for _, l := range parse(from, section).links {
		if strings.Contains(l.target, "://") {
			out = append(out, l.target)
			continue
		}
		target := from
		if file, _, _ := strings.Cut(l.target, "#"); file != "" {
			target = path.Join(path.Dir(from), file)
		}
		if target == other {
			continue
		}
		if _, ok := texts[translationOf(target)]; ok && !follows.MatchString(texts[from]) {
			target = translationOf(target)
		}
		out = append(out, target)
	}
	return out
}

// difference returns what is in want alone and what is in got alone, each once and sorted.
func difference(want, got []string) (missing, more []string) {
	without := func(a, b []string) []string {
		a = slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
		slices.Sort(a)
		return slices.Compact(a)
	}
	return without(want, got), without(got, want)
}

// TestCheckTranslation checks that whatever makes a translation differ from its English page is found, and nothing else.
func TestCheckTranslation(t *testing.T) {
	english := "# One\n\n[中文](zh/a.md) A pod has 90 s, see [two](#two) and [b](b.md).\n\n```sh\n# Ask.\nkubectl get wxtoken # now\n```\n\n" +
		"## Two\n\nOn 40001 set `--flag` of WeChatAppTokens, as [WeChat](https://example.com) says.\n"
	chinese := firstLine("docs/a.md", english) + "\n# 一\n\n[English](../a.md) Pod 有 90 秒，见[二](#二)和 [b](../b.md)。\n\n" +
		"```sh\n# 查询\nkubectl get wxtoken # 现在\n```\n\n" +
		"## 二\n\n遇到 40001，设置 WeChatAppToken 的 `--flag`，[微信](https://example.com)这样说。\n"
	for name, tc := range map[string]struct{ old, new, says string }{
		"the same":         {},
		"no first line":    {"<!-- follows", "<!-- like", "does not begin with a line like"},
		"another page":     {"docs/a.md", "docs/b.md", "whose translation would be docs/zh/b.md"},
		"older":            {"sha256:", "sha256:0123456789abcdef -->\n<!-- ", "follows an older docs/a.md"},
		"heading missing":  {"## 二", "二", "has 1 headings, and docs/a.md has 2"},
		"another level":    {"## 二", "### 二", "the level of the heading"},
		"another command":  {"get wxtoken", "get wxtokens", "a code block differs"},
		"no command":       {"```sh\n# 查询\nkubectl get wxtoken # 现在\n```\n", "", "it has 0 code blocks"},
		"another language": {"```sh", "```text", "a code block differs"},
		"another errcode":  {"40001", "40014", "does not have the errcode 40014"},
		"one errcode less": {"40001", "错误", "has the errcode 40001"},
		"one flag less":    {"`--flag`", "参数", "has the flag --flag"},
		"another flag":     {"`--flag`", "`--flag` --flags", "does not have the flag --flags"},
		"another span":     {"`--flag`", "`--flag` 和 `flip`", "has `flip` nowhere"},
		"another number":   {"90 秒", "60 秒", "has the number 90"},
		"another name":     {"WeChatAppToken", "它", "has the name WeChatAppToken"},
		"another address":  {"https://example.com", "https://example.org", "no link to https://example.org"},
		"link to English":  {"(../b.md)", "(../../b.md)", "it lacks a link to docs/b.md"},
		"outdated":         {"遇到 40001，", "本节尚未更新，请以[英文版](../a.md#two)为准。<!-- outdated -->\n\n遇到 40014，", ""},
		"outdated, silent": {"遇到 40001，", "<!-- outdated -->\n\n遇到 40001，", "the line that marks it as outdated must be"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(chinese, tc.old, tc.new, 1)
			problems := strings.Join(checkTranslation(map[string]string{"docs/a.md": english, "docs/b.md": "", "docs/zh/a.md": text}, "docs/zh/a.md"), "\n")
			if (problems == "") != (tc.says == "") || !strings.Contains(problems, tc.says) {
				t.Errorf("got %q, want %q", problems, tc.says)
			}
		})
	}
}

// TestCheckDrawing checks that a translated drawing may differ by its texts alone.
func TestCheckDrawing(t *testing.T) {
	const english = "<svg><text x=\"1\">pod</text></svg>\n"
	for chinese, good := range map[string]bool{
		"<svg><text x=\"1\">卷</text></svg>\n": true,
		"<svg><text x=\"2\">卷</text></svg>\n": false,
		"<svg></svg>\n":                       false,
	} {
		problems := checkTranslation(map[string]string{
			"docs/images/a.svg":    english,
			"docs/images/zh/a.svg": firstLine("docs/images/a.svg", english) + chinese,
		}, "docs/images/zh/a.svg")
		if (len(problems) == 0) != good {
			t.Errorf("%s: %q", chinese, problems)
		}
	}
}

// TestTranslationStatus checks what make docs-zh-status prints in a repository with a current page, one whose English page changed, and
// one that follows what no commit has.
func TestTranslationStatus(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	run := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %q: %v: %s", name, args, err, out)
		}
		return string(out)
	}
	commit := func() {
		run("git", "add", ".")
		run("git", "-c", "user.name=test", "-c", "user.email=test@example.com", "commit", "-q", "-m", "x")
	}
	write("hack/docs-zh-status.sh", text(t, "hack/docs-zh-status.sh"))
	run("git", "init", "-q")
	for _, english := range []string{"README.md", "docs/a.md", "docs/b.md"} {
		write(english, "before\n")
	}
	write("README.zh-CN.md", firstLine("README.md", "before\n")+"本节尚未更新，请以[英文版](README.md)为准。<!-- outdated -->\n")
	write("docs/zh/a.md", firstLine("docs/a.md", "before\n"))
	write("docs/zh/b.md", firstLine("docs/b.md", "never\n"))
	write("docs/zh/c.md", "nothing\n")
	commit()
	write("docs/a.md", "after\n")
	commit()
	out := run("hack/docs-zh-status.sh")
	for _, want := range []string{
		"README.zh-CN.md: current, with 1 sections marked as outdated\n",
		"docs/zh/a.md: docs/a.md has changed. Once the page has these changes, begin it with:\n" + firstLine("docs/a.md", "after\n"),
		"\n-before\n+after\n",
		"docs/zh/b.md: docs/b.md has changed. ",
		"No commit of this clone has the docs/b.md that it follows",
		"docs/zh/c.md: its first line names no page that exists\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the output lacks %q:\n%s", want, out)
		}
	}
}
