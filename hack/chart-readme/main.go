// SPDX-License-Identifier: Apache-2.0

// Command chart-readme writes the comments of a chart's values.yaml as a table into its README.md, between two marks.
//
//	go run ./hack/chart-readme charts/wechat-token-operator
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"sigs.k8s.io/yaml"
)

const (
	begin = "<!-- values: written by make chart from values.yaml -->\n"
	end   = "<!-- end of values -->\n"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: chart-readme CHART")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "chart-readme:", err)
		os.Exit(1)
	}
}

func run(chart string) error {
	values, err := os.ReadFile(filepath.Join(chart, "values.yaml"))
	if err != nil {
		return err
	}
	path := filepath.Join(chart, "README.md")
	readme, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	rows, err := table(string(values))
	if err != nil {
		return fmt.Errorf("values.yaml: %w", err)
	}
	before, rest, found := strings.Cut(string(readme), begin)
	_, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		return fmt.Errorf("%s lacks the marks %q and %q", path, strings.TrimSpace(begin), strings.TrimSpace(end))
	}
	return os.WriteFile(path, []byte(before+begin+rows+end+after), 0o644) //nolint:gosec // a document for everybody
}

var keyLine = regexp.MustCompile(`^( *)([A-Za-z][A-Za-z0-9]*):(.*)$`)

// table has a row for each key with a comment of its own. Every key has one, or is below or above one that has.
func table(values string) (string, error) {
	tree := map[string]any{}
	if err := yaml.Unmarshal([]byte(values), &tree); err != nil {
		return "", err
	}
	out := &strings.Builder{}
	out.WriteString("| Value | Default | What it does |\n|---|---|---|\n")
	var path, comment []string
	documented := ""
	for line := range strings.Lines(values) {
		text := strings.TrimSpace(line)
		m := keyLine.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		switch {
		case strings.HasPrefix(text, "#"):
			comment = append(comment, strings.TrimSpace(strings.TrimPrefix(text, "#")))
		case m == nil:
			comment = nil
		default:
			path = append(path[:min(len(path), len(m[1])/2)], m[2])
			name := strings.Join(path, ".")
			inside := documented != "" && strings.HasPrefix(name, documented+".")
			switch {
			case len(comment) > 0:
				if err := row(out, tree, path, comment); err != nil {
					return "", err
				}
				documented = name
			case !inside && strings.TrimSpace(m[3]) != "":
				return "", fmt.Errorf("%s has no comment", name)
			}
			comment = nil
		}
	}
	return out.String(), nil
}

func row(out *strings.Builder, tree map[string]any, path, comment []string) error {
	var value any = tree
	for _, key := range path {
		m, ok := value.(map[string]any)
		if !ok {
			return errors.New(strings.Join(path, ".") + " is not where its indentation says")
		}
		value = m[key]
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return err
	}
	cell := strings.NewReplacer("|", `\|`)
	fmt.Fprintf(out, "| `%s` | `%s` | %s |\n", strings.Join(path, "."), cell.Replace(string(raw)), cell.Replace(strings.Join(comment, " ")))
	return nil
}
