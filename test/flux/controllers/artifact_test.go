// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"io/fs"
	"log"
	"maps"
	"net/http/httptest"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// The media types that "flux push artifact" writes.
const (
	configType types.MediaType = "application/vnd.cncf.flux.config.v1+json"
	layerType  types.MediaType = "application/vnd.cncf.flux.content.v1.tar+gzip"
)

// startRegistry starts a registry and returns the tag that Flux pulls.
func startRegistry(t *testing.T) name.Tag {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	tag, err := name.NewTag(strings.TrimPrefix(server.URL, "http://")+"/platform:latest", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	return tag
}

// pushArtifact pushes what Flux applies, config/ and these files, as "flux push artifact" does, and returns the revision as Flux calls it.
func pushArtifact(t *testing.T, tag name.Tag, files map[string]string) string {
	t.Helper()
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), configType)
	image, err := mutate.AppendLayers(image, static.NewLayer(archive(t, files), layerType))
	if err != nil {
		t.Fatal(err)
	}
	image = mutate.Annotations(image, map[string]string{
		"org.opencontainers.image.created":  time.Now().UTC().Format(time.RFC3339Nano),
		"org.opencontainers.image.source":   "https://git.example.com/platform.git",
		"org.opencontainers.image.revision": "main",
	}).(v1.Image)
	if err := remote.Write(tag, image, remote.WithContext(t.Context())); err != nil {
		t.Fatal(err)
	}
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return tag.TagStr() + "@" + digest.String()
}

// archive returns a compressed tar of config/ and of the files.
func archive(t *testing.T, files map[string]string) []byte {
	t.Helper()
	all := maps.Clone(files)
	config := os.DirFS(path.Join(root, "config"))
	err := fs.WalkDir(config, ".", func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := fs.ReadFile(config, file)
		all[path.Join("config", file)] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	compressed := gzip.NewWriter(&out)
	writer := tar.NewWriter(compressed)
	for _, file := range slices.Sorted(maps.Keys(all)) {
		if err := writer.WriteHeader(&tar.Header{Name: file, Mode: 0o644, Size: int64(len(all[file]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(writer, all[file]); err != nil {
			t.Fatal(err)
		}
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	if err := compressed.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
