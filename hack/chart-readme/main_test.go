// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

func TestTable(t *testing.T) {
	got, err := table("# A licence.\n\n# How many.\nreplicas: 2\nimage:\n  # Which one, a | b.\n  tag: \"\"\n" +
		"# What it may use.\nresources:\n  limits:\n    memory: 1Mi\n")
	if err != nil {
		t.Fatal(err)
	}
	want := "| Value | Default | What it does |\n|---|---|---|\n" +
		"| `replicas` | `2` | How many. |\n" +
		"| `image.tag` | `\"\"` | Which one, a \\| b. |\n" +
		"| `resources` | `{\"limits\":{\"memory\":\"1Mi\"}}` | What it may use. |\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if _, err := table("image:\n  tag: x\n"); err == nil || !strings.Contains(err.Error(), "image.tag has no comment") {
		t.Errorf("a value without a comment: %v", err)
	}
}

// A value that the schema does not know would be refused, and one that it alone knows is documented nowhere.
func TestSchemaKnowsTheValues(t *testing.T) {
	const chart = "../../charts/wechat-token-operator/"
	values, schema := map[string]any{}, map[string]any{}
	raw, err := os.ReadFile(chart + "values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(raw, &values); err != nil {
		t.Fatal(err)
	}
	if raw, err = os.ReadFile(chart + "values.schema.json"); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &schema); err != nil {
		t.Fatal(err)
	}
	compare(t, "", values, schema)
}

func compare(t *testing.T, path string, values, schema map[string]any) {
	t.Helper()
	properties, ok := schema["properties"].(map[string]any)
	if !ok {
		return // free within
	}
	for key, property := range properties {
		inner, known := values[key]
		if !known && path+key != "global" {
			t.Errorf("values.yaml lacks %s%s", path, key)
		}
		p, isSchema := property.(map[string]any)
		// An empty map is a value as a whole, such as one that Kubernetes defines.
		if m, isMap := inner.(map[string]any); isMap && len(m) > 0 && isSchema {
			compare(t, path+key+".", m, p)
		}
	}
	for key := range values {
		if _, known := properties[key]; !known {
			t.Errorf("the schema lacks %s%s", path, key)
		}
	}
}
