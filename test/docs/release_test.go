// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestBaseImagesArePinned: each image that a Dockerfile begins with is pinned by its digest, with the tag that it had.
func TestBaseImagesArePinned(t *testing.T) {
	from := regexp.MustCompile(`(?m)^(?:ARG \w+_IMAGE=|FROM (?:--platform=\S+ )?)(\S+)`)
	pinned := regexp.MustCompile(`^\S+:[\w.-]+@sha256:[0-9a-f]{64}$`)
	for _, file := range []string{"Dockerfile", "examples/qrcode/Dockerfile", "examples/h5/Dockerfile"} {
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		images := from.FindAllStringSubmatch(string(text), -1)
		if len(images) != 4 {
			t.Errorf("%s: found %d images: does the test still read them?", file, len(images))
		}
		for _, m := range images {
			if !strings.HasPrefix(m[1], "${") && !pinned.MatchString(m[1]) {
				t.Errorf("%s: not pinned by digest: %s", file, m[1])
			}
		}
	}
}

// TestReleaseIsSigned: whatever the release workflow publishes, it has signed before: files with a bundle beside them, and what it pushes
// to the registry by its digest.
func TestReleaseIsSigned(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, ".github", "workflows", "release.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	workflow := string(text)
	before, publish, found := strings.Cut(workflow, "gh release create")
	if !found {
		t.Fatal("the workflow publishes nothing")
	}
	published := regexp.MustCompile(`\bdist/[\w./*-]+`).FindAllString(publish, -1)
	for _, want := range []string{"dist/release/*"} {
		if !slices.Contains(published, want) || len(published) != 1 {
			t.Errorf("it publishes %q, want %s alone, which is signed as a whole", published, want)
		}
	}
	for _, want := range []string{
		`for file in dist/release/*; do`, `cosign sign-blob --yes --bundle "$file.sigstore.json" "$file"`,
		`cosign sign --yes "$IMAGE@$DIGEST"`, `cosign sign --yes "$CHART@$CHART_DIGEST"`,
		"dist/install.yaml", "dist/krew/", "dist/chart/", "sbom.spdx.json",
	} {
		if !strings.Contains(before, want) {
			t.Errorf("before it publishes, it lacks %s", want)
		}
	}
	if tagged := regexp.MustCompile(`cosign (sign|attest) [^\n]*:\$`).FindAllString(workflow, -1); tagged != nil {
		t.Errorf("it signs by tag, which can be moved: %q", tagged)
	}
}
