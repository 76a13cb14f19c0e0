// SPDX-License-Identifier: Apache-2.0

// Command image packs static binaries into an OCI image without a container engine, and writes it as an archive:
//
//	image --ref wechat-token-operator:dev --out operator.tar \
//		linux/amd64=bin/amd64/operator,bin/amd64/gateway linux/arm64=bin/arm64/operator,bin/arm64/gateway
//
// The first binary is the entry point.
//
// What it makes depends on the binaries and this module alone: two builds have the same digest.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

type options struct {
	ref      name.Tag
	out      string
	binaries []binaries
}

// binaries are the static executables for a platform. The first one is the entry point.
type binaries struct {
	platform v1.Platform
	paths    []string
}

// run writes the archive and prints the digest of the image.
func run(args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	index, err := buildIndex(o.binaries)
	if err != nil {
		return err
	}
	if err := writeArchive(o.out, o.ref, index); err != nil {
		return fmt.Errorf("writing %s: %w", o.out, err)
	}
	digest, err := index.Digest()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "%s@%s\n", o.ref, digest)
	return err
}

func parse(args []string, stderr io.Writer) (o options, err error) {
	var ref string
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&ref, "ref", "", "name and tag of the image")
	flags.StringVar(&o.out, "out", "", "archive to write")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if o.ref, err = name.NewTag(ref); err != nil {
		return o, fmt.Errorf("--ref: %w", err)
	}
	if o.out == "" || flags.NArg() == 0 {
		return o, errors.New("--out and at least one PLATFORM=BINARY[,BINARY…] are needed")
	}
	for _, arg := range flags.Args() {
		b, err := parseBinaries(arg)
		if err != nil {
			return o, err
		}
		o.binaries = append(o.binaries, b)
	}
	return o, nil
}

func parseBinaries(arg string) (binaries, error) {
	platform, list, _ := strings.Cut(arg, "=")
	paths := strings.Split(list, ",")
	if slices.Contains(paths, "") {
		return binaries{}, fmt.Errorf("%q is not PLATFORM=BINARY[,BINARY…]", arg)
	}
	p, err := v1.ParsePlatform(platform)
	if err != nil || p.OS == "" || p.Architecture == "" {
		return binaries{}, fmt.Errorf("%q is no platform such as linux/amd64", platform)
	}
	return binaries{platform: *p, paths: paths}, nil
}
