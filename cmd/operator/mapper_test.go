// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"testing"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// discovery counts how often it is asked, and does not know a kind at first.
type discovery struct {
	apimeta.RESTMapper

	asked int
}

func (d *discovery) RESTMapping(kind schema.GroupKind, versions ...string) (*apimeta.RESTMapping, error) {
	if d.asked++; d.asked == 1 {
		return nil, errors.New("not installed yet")
	}
	return &apimeta.RESTMapping{GroupVersionKind: kind.WithVersion(versions[0])}, nil
}

func TestMapperRemembersAnswers(t *testing.T) {
	d := &discovery{}
	mapper := remember(d)
	secret, pod := schema.GroupKind{Kind: "Secret"}, schema.GroupKind{Kind: "Pod"}
	for i, step := range []struct {
		kind    schema.GroupKind
		version string
		fails   bool
		asked   int
	}{
		{secret, "v1", true, 1},
		{secret, "v1", false, 2}, // an error is not remembered
		{secret, "v1", false, 2},
		{pod, "v1", false, 3},
		{secret, "v2", false, 4},
		{secret, "v1", false, 4},
	} {
		got, err := mapper.RESTMapping(step.kind, step.version)
		if (err != nil) != step.fails || d.asked != step.asked {
			t.Fatalf("step %d: error %v, asked %d times, want %d", i, err, d.asked, step.asked)
		}
		if err == nil && got.GroupVersionKind != step.kind.WithVersion(step.version) {
			t.Errorf("step %d: %v", i, got.GroupVersionKind)
		}
	}
	if _, err := mapper.RESTMapping(secret, "v1", "v2"); err != nil || d.asked != 5 {
		t.Errorf("a choice of versions: error %v, asked %d times", err, d.asked)
	}
}
