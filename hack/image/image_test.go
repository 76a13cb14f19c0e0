// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"crypto/x509"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// build makes an archive of stand-ins for two programs, for two platforms.
func build(t *testing.T, content string) (archive, printed string) {
	t.Helper()
	dir := t.TempDir()
	args := []string{"--ref", "wechat-token-operator:v1", "--out", filepath.Join(dir, "out", "image.tar")}
	for _, arch := range []string{"amd64", "arm64"} {
		var paths []string
		for _, name := range []string{"operator", "gateway"} {
			path := filepath.Join(dir, arch, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(content+arch), 0o700); err != nil {
				t.Fatal(err)
			}
			paths = append(paths, path)
		}
		args = append(args, "linux/"+arch+"="+strings.Join(paths, ","))
	}
	var stdout bytes.Buffer
	if err := run(args, &stdout, io.Discard); err != nil {
		t.Fatal(err)
	}
	return args[3], stdout.String()
}

// images opens an archive with a reader of its own.
func images(t *testing.T, archive string) (descriptor v1.Descriptor, found map[string]v1.Image) {
	t.Helper()
	dir := t.TempDir()
	file, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	for r := tar.NewReader(file); ; {
		header, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, header.Name)
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	top, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := top.IndexManifest()
	if err != nil || len(manifest.Manifests) != 1 {
		t.Fatalf("the archive has %+v, %v", manifest, err)
	}
	index, err := top.ImageIndex(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	inner, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	found = map[string]v1.Image{}
	for _, m := range inner.Manifests {
		if found[m.Platform.String()], err = index.Image(m.Digest); err != nil {
			t.Fatal(err)
		}
	}
	return manifest.Manifests[0], found
}

// files are the headers and contents of all layers.
func files(t *testing.T, image v1.Image) (headers map[string]*tar.Header, contents map[string][]byte) {
	t.Helper()
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	headers, contents = map[string]*tar.Header{}, map[string][]byte{}
	for _, layer := range layers {
		content, err := layer.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		for r := tar.NewReader(content); ; {
			header, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			headers[header.Name] = header
			if contents[header.Name], err = io.ReadAll(r); err != nil {
				t.Fatal(err)
			}
		}
	}
	return headers, contents
}

func TestReproducible(t *testing.T) {
	first, firstDigest := build(t, "x")
	time.Sleep(time.Second) // a time in it would differ now
	second, secondDigest := build(t, "x")
	a, errA := os.ReadFile(first)
	b, errB := os.ReadFile(second)
	if errA != nil || errB != nil || !bytes.Equal(a, b) {
		t.Error("two builds gave two archives")
	}
	if firstDigest != secondDigest || !strings.HasPrefix(firstDigest, "wechat-token-operator:v1@sha256:") {
		t.Errorf("two builds printed %q and %q", firstDigest, secondDigest)
	}
	if _, other := build(t, "y"); other == firstDigest {
		t.Error("another binary has the same digest")
	}
}

func TestImage(t *testing.T) {
	archive, _ := build(t, "x")
	descriptor, found := images(t, archive)
	if got := descriptor.Annotations["io.containerd.image.name"]; got != "docker.io/library/wechat-token-operator:v1" {
		t.Errorf("containerd would name it %q", got)
	}
	if len(found) != 2 {
		t.Fatalf("it is for %v", found)
	}
	for platform, image := range found {
		config, err := image.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if got := config.OS + "/" + config.Architecture; got != platform {
			t.Errorf("the image for %s is for %s", platform, got)
		}
		headers, contents := files(t, image)
		for _, name := range []string{"operator", "gateway"} {
			if binary := headers[name]; binary == nil || binary.Mode != 0o755 || string(contents[name]) != "x"+config.Architecture {
				t.Errorf("%s: the %s is %+v %q", platform, name, binary, contents[name])
			}
		}
		for name, header := range headers {
			if header.Uid != 0 || header.Gid != 0 || header.Mode&0o022 != 0 && name != "tmp/" || header.Mode&0o6000 != 0 {
				t.Errorf("%s: %s may be changed or used by others: %+v", platform, name, header)
			}
			if strings.Contains(name, "bin/") || strings.HasSuffix(name, "sh") {
				t.Errorf("%s: there is %s", platform, name)
			}
		}
	}
}

func TestCertificates(t *testing.T) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(certificates()) {
		t.Fatal("there is none")
	}
	if n := bytes.Count(certificates(), []byte("BEGIN CERTIFICATE")); n < 80 {
		t.Errorf("there are %d", n)
	}
	// The authority behind api.weixin.qq.com.
	if !bytes.Contains(bytes.Join(subjects(t), nil), []byte("DigiCert Global Root")) {
		t.Error("DigiCert's are missing")
	}
}

func subjects(t *testing.T) (found [][]byte) {
	t.Helper()
	_, contents := files(t, func() v1.Image { archive, _ := build(t, "x"); _, i := images(t, archive); return i["linux/amd64"] }())
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(contents[certificatesPath])
	return pool.Subjects() //nolint:staticcheck // it is no system pool
}

// The Dockerfile and this program make the same of the same binary.
func TestLikeDockerfile(t *testing.T) {
	dockerfile, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile("build.sh")
	if err != nil {
		t.Fatal(err)
	}
	field := func(pattern string) string {
		t.Helper()
		all := regexp.MustCompile("(?m)^"+pattern).FindAllStringSubmatch(string(dockerfile), -1)
		if len(all) == 0 {
			t.Fatalf("the Dockerfile has no %s", pattern)
		}
		return all[len(all)-1][1]
	}
	_, found := images(t, func() string { archive, _ := build(t, "x"); return archive }())
	config, err := found["linux/amd64"].ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if want := field(`USER (.*)$`); config.Config.User != want {
		t.Errorf("the user is %s, the Dockerfile's %s", config.Config.User, want)
	}
	var entrypoint []string
	if err := json.Unmarshal([]byte(field(`ENTRYPOINT (.*)$`)), &entrypoint); err != nil || !slices.Equal(entrypoint, config.Config.Entrypoint) {
		t.Errorf("the entry point is %v, the Dockerfile's %v", config.Config.Entrypoint, entrypoint)
	}
	flags := strings.ReplaceAll(field(`\s+go build (.*) -o`), "${VERSION}", "$version")
	if !strings.Contains(string(script), "go build "+flags) {
		t.Errorf("build.sh does not build with %s", flags)
	}
	packages := field(`\s+go build .* -o /out/ (.*)$`)
	if !strings.Contains(string(script), `packages="`+packages+`"`) {
		t.Errorf("build.sh does not build %s", packages)
	}
}

func TestRefusals(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"--out", "x", "linux/amd64=x"}, "--ref"},
		{[]string{"--ref", "a:b", "linux/amd64=x"}, "--out"},
		{[]string{"--ref", "a:b", "--out", "x"}, "PLATFORM=BINARY"},
		{[]string{"--ref", "a:b", "--out", "x", "binary"}, "PLATFORM=BINARY"},
		{[]string{"--ref", "a:b", "--out", "x", "linux/amd64=x,"}, "PLATFORM=BINARY"},
		{[]string{"--ref", "a:b", "--out", "x", "linux=x"}, "no platform"},
		{[]string{"--ref", "a:b", "--out", "x", "linux/amd64=none"}, "none"},
	} {
		if err := run(tc.args, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%v: %v, want %q", tc.args, err, tc.want)
		}
	}
}
