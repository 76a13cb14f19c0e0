// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/wechat-token-operator/wechat-token-operator/internal/program"
)

func parse(t *testing.T, args ...string) *options {
	t.Helper()
	o := &options{}
	fs := flag.NewFlagSet("gateway", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	o.bind(fs)
	if err := program.ParseFlags(fs, args, flagEndpoints, flagNamespaces); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestFlags(t *testing.T) {
	o := parse(t, "--namespaces=shop,\n blog,shop", "--tls-cert-file=a", "--tls-key-file=b", "--audit-log=/var/log/calls")
	if err := o.complete(); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(o.namespaceList, []string{"blog", "shop"}) || o.bindAddress != ":8080" || o.tokenAudience != "wechat-gateway" {
		t.Errorf("%+v", o)
	}
}

func TestWrongFlags(t *testing.T) {
	for arg, want := range map[string]string{
		"--namespaces=Shop":          "--namespaces",
		"--bind-address=0":           "--bind-address",
		"--tls-cert-file=a":          "--tls-key-file",
		"--tls-key-file=a":           "--tls-cert-file",
		"--token-audience=":          "--token-audience",
		"--max-buffered-bytes=1000":  "--max-buffered-bytes",
		"--wechat-max-in-flight=0":   "--wechat-max-in-flight",
		"--wechat-timeout=0":         "--wechat-timeout",
		"--metrics-secure=false":     "",
		"--metrics-cert-path=/certs": "",
	} {
		err := parse(t, arg).complete()
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", arg, err)
		}
	}
	if err := parse(t, "--metrics-secure=false", "--metrics-cert-path=/certs").complete(); err == nil {
		t.Error("a certificate is accepted that would not be served")
	}
}
