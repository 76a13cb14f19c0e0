// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// user is the one of the distroless images, so that the Dockerfile's result and this one run alike.
const user = "65532:65532"

// buildIndex makes an image for each platform, and an index of them.
func buildIndex(all []binaries) (v1.ImageIndex, error) {
	base, err := layerOf(baseFiles())
	if err != nil {
		return nil, fmt.Errorf("base layer: %w", err)
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, b := range all {
		image, err := buildImage(base, b)
		if err != nil {
			return nil, fmt.Errorf("%s for %s: %w", b.paths, b.platform, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: image, Descriptor: v1.Descriptor{MediaType: types.OCIManifestSchema1, Platform: &b.platform},
		})
	}
	return index, nil
}

// buildImage puts the binaries on the base, in the root as the Dockerfile has them.
func buildImage(base v1.Layer, b binaries) (v1.Image, error) {
	var programs []file
	for _, path := range b.paths {
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		programs = append(programs, file{path: filepath.Base(path), mode: 0o755, content: content})
	}
	layer, err := layerOf(programs)
	if err != nil {
		return nil, err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	if image, err = mutate.AppendLayers(image, base, layer); err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Variant = b.platform.OS, b.platform.Architecture, b.platform.Variant
	config.Config = v1.Config{
		User: user, WorkingDir: "/", Entrypoint: []string{"/" + programs[0].path},
		Env: []string{"PATH=/", "SSL_CERT_FILE=/" + certificatesPath},
	}
	return mutate.ConfigFile(image, config)
}

// file is a folder if its path ends with a slash.
type file struct {
	path    string
	mode    int64
	content []byte
}

const certificatesPath = "etc/ssl/certs/ca-certificates.crt"

// baseFiles is what a static program needs around it: certificate authorities, names for the users, and a folder for temporary
// files. There is no shell, no libc and no package manager.
func baseFiles() []file {
	return []file{
		{path: "etc/", mode: 0o755},
		{path: "etc/group", mode: 0o644, content: []byte("root:x:0:\nnobody:x:65534:\nnonroot:x:65532:\n")},
		{path: "etc/passwd", mode: 0o644, content: []byte("root:x:0:0:root:/root:/sbin/nologin\n" +
			"nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n")},
		{path: "etc/ssl/", mode: 0o755},
		{path: "etc/ssl/certs/", mode: 0o755},
		{path: certificatesPath, mode: 0o644, content: certificates()},
		{path: "tmp/", mode: 0o1777},
	}
}

// certificates are Mozilla's roots. Those that it trusts under a condition only are left out: a file of PEM cannot state one.
func certificates() []byte {
	var out bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}) // a buffer takes everything
		}
	}
	return out.Bytes()
}

// layerOf packs files as root's, without times.
func layerOf(files []file) (v1.Layer, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range files {
		header := &tar.Header{Typeflag: tar.TypeReg, Name: f.path, Mode: f.mode, Size: int64(len(f.content)), ModTime: time.Unix(0, 0)}
		if strings.HasSuffix(f.path, "/") {
			header.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.content); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	content := out.Bytes()
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
		tarball.WithMediaType(types.OCILayer))
}
