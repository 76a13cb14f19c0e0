// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
)

func parse(t *testing.T, args ...string) *options {
	t.Helper()
	o := &options{}
	fs := flag.NewFlagSet("operator", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	o.bind(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return o
}

// TestFlags checks the names and defaults of the flags, on which scripts and charts depend.
func TestFlags(t *testing.T) {
	fs := flag.NewFlagSet("operator", flag.ContinueOnError)
	(&options{}).bind(fs)
	for name, want := range map[string]string{
		"wechat-endpoints":          "https://api.weixin.qq.com,https://api2.weixin.qq.com",
		"wechat-ca-file":            "",
		"wechat-timeout":            "5s",
		"wechat-max-in-flight":      "64",
		"namespaces":                "",
		"watch-label-selector":      "",
		"max-concurrent-reconciles": "64",
		"require-credentials-label": "false",
		"gateway-url":               "",
		"gateway-ca-file":           "",
		"kube-api-qps":              "-1",
		"kube-api-burst":            "0",
		"leader-elect":              "false",
		"leader-election-id":        "",
		"leader-election-namespace": "",
		"metrics-bind-address":      "0",
		"metrics-secure":            "true",
		"metrics-cert-path":         "",
		"metrics-cert-name":         "tls.crt",
		"metrics-cert-key":          "tls.key",
		"health-probe-bind-address": ":8081",
		"pprof-bind-address":        "",
		"zap-log-level":             "",
	} {
		switch f := fs.Lookup(name); {
		case f == nil:
			t.Errorf("--%s does not exist", name)
		case f.DefValue != want:
			t.Errorf("--%s has the default %q, want %q", name, f.DefValue, want)
		case f.Usage == "":
			t.Errorf("--%s is not explained", name)
		}
	}
}

// TestWrongFlags checks that a wrong flag ends the process at once, with an error that names the flag.
func TestWrongFlags(t *testing.T) {
	for arg, says := range map[string]string{
		"--wechat-endpoints=http://example.com":         "--wechat-endpoints",
		"--wechat-endpoints=https://u:pw@example.com":   "--wechat-endpoints",
		"--wechat-endpoints=,":                          "--wechat-endpoints",
		"--wechat-timeout=-1s":                          "--wechat-timeout",
		"--wechat-timeout=0":                            "--wechat-timeout: 0s is not positive",
		"--wechat-max-in-flight=-1":                     "--wechat-max-in-flight",
		"--wechat-max-in-flight=0":                      "--wechat-max-in-flight: 0 is less than 1",
		"--wechat-ca-file=/does/not/exist":              "--wechat-ca-file",
		"--namespaces=Shop":                             "--namespaces",
		"--watch-label-selector=a=b=c":                  "--watch-label-selector",
		"--max-concurrent-reconciles=0":                 "--max-concurrent-reconciles",
		"--kube-api-qps=0":                              "--kube-api-qps",
		"--pprof-bind-address=:6060":                    "--pprof-bind-address",
		"--metrics-cert-path=/x --metrics-secure=false": "--metrics-cert-path",
		"--gateway-url=wechat-gateway":                  "--gateway-url",
		"--gateway-url=https://u:pw@example.com":        "--gateway-url",
		"--gateway-url=https://example.com/path":        "--gateway-url",
		"--gateway-url=ftp://example.com":               "--gateway-url",
		"--gateway-ca-file=/etc/gateway-ca/ca.crt":      "--gateway-ca-file",
		"--pprof-bind-address=0.0.0.0:6060":             "--pprof-bind-address",
		"--pprof-bind-address=localhost:6060":           "--pprof-bind-address",
	} {
		t.Run(arg, func(t *testing.T) {
			err := run(t.Context(), parse(t, strings.Fields(arg)...), logr.Discard(), prometheus.NewRegistry())
			if err == nil || !strings.Contains(err.Error(), says) {
				t.Fatalf("got %v", err)
			}
			if strings.Contains(err.Error(), "u:pw") {
				t.Error("the error holds a password")
			}
		})
	}
}

func TestNamespaces(t *testing.T) {
	o := parse(t, "--namespaces= b, a ,,b")
	if err := o.complete(); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(o.namespaceList, " "); got != "a b" {
		t.Errorf("namespaces: %q", got)
	}
}

// TestDefaultLeaderElectionID checks that operators for different resources have different IDs, and replicas of one the same.
func TestDefaultLeaderElectionID(t *testing.T) {
	id := func(args ...string) string {
		o := parse(t, args...)
		if err := o.complete(); err != nil {
			t.Fatal(err)
		}
		return o.leaderElectionID
	}
	if id("--namespaces=a,b") != id("--namespaces=b,a") {
		t.Error("the order of namespaces matters")
	}
	ids := []string{id(), id("--namespaces=a"), id("--namespaces=b"), id("--watch-label-selector=shard=1"), id("--watch-label-selector=shard=2")}
	for i := range ids {
		for j := range i {
			if ids[i] == ids[j] {
				t.Errorf("%d and %d share %s", i, j, ids[i])
			}
		}
	}
	// The rule of config/rbac names the Lease of an operator that serves everything.
	role, err := os.ReadFile("../../config/rbac/leader_election_role.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(role), "resourceNames: ["+ids[0]+"]") {
		t.Errorf("config/rbac/leader_election_role.yaml does not name %s", ids[0])
	}
	if got := id("--leader-election-id=mine"); got != "mine" {
		t.Errorf("got %s", got)
	}
}

func TestNoMetricsCertificate(t *testing.T) {
	if c := parse(t).servers.Certificate(logr.Discard()); c != nil {
		t.Error("there is a certificate without a flag")
	}
}
