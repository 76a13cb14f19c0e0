// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/gateway"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

const (
	appID     = "wx0123456789abcdef"
	clientKey = "0123456789abcdef0123456789abcdef"
	// pool is the number of connections that either proxy keeps to WeChat.
	pool = 512
)

// cost is what a proxy has used so far.
type cost struct {
	CPU time.Duration `json:"cpu"`
	// Mallocs and Bytes count allocations on the heap.
	Mallocs uint64 `json:"mallocs"`
	Bytes   uint64 `json:"bytes"`
}

// runProxy serves until standard input ends. It first writes its address, and then its cost for each line that it reads.
func runProxy(kind, upstream, caFile, dir string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it ends with the process
	if err != nil {
		return err
	}
	var handler http.Handler
	switch kind {
	case "bare":
		handler, err = bareProxy(upstream, caFile)
	case ownKind:
		handler, err = gatewayProxy(upstream, caFile, dir)
	default:
		err = fmt.Errorf("there is no proxy %q", kind)
	}
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
	go func() { _ = server.Serve(l) }()
	fmt.Printf("http://%s\n", l.Addr())
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		if err := json.NewEncoder(os.Stdout).Encode(ownCost()); err != nil {
			return err
		}
	}
	return nil
}

func ownCost() cost {
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return cost{
		CPU:     time.Duration(usage.Utime.Nano() + usage.Stime.Nano()),
		Mallocs: memory.Mallocs, Bytes: memory.TotalAlloc,
	}
}

// bareProxy passes everything on and looks at nothing: the least that a proxy of Go's standard library does.
func bareProxy(upstream, caFile string) (http.Handler, error) {
	target, err := url.Parse(upstream)
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(caFile) //nolint:gosec // the benchmark's own
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("the CA's file has no certificate")
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: &http.Transport{
			TLSClientConfig:    &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
			MaxIdleConns:       pool,
			DisableCompression: true, MaxIdleConnsPerHost: pool, MaxConnsPerHost: pool, Protocols: protocols,
		},
		ErrorLog: log.New(io.Discard, "", 0),
	}, nil
}

// fixed is a store that never changes.
type fixed struct{ policy *gateway.Policy }

func (f fixed) Policy() (current *gateway.Policy, replaced <-chan struct{}) { return f.policy, nil }

// gatewayProxy is the gateway with its audit log in a file and its metrics, and a store with one client.
func gatewayProxy(upstream, caFile, dir string) (http.Handler, error) {
	key := gateway.NewKey(token.NewValue(clientKey), time.Time{})
	source := fixed{gateway.NewPolicy([]*gateway.Client{{
		UID: "0f2d1c3b-0000-4000-8000-000000000001", Name: types.NamespacedName{Namespace: "shop", Name: "bench"},
		Keys: []gateway.Key{key}, Paths: []string{"/cgi-bin/*"},
		Rate: v1alpha1.RateLimit{RequestsPerSecond: 1_000_000, Burst: 1_000_000},
		Account: &gateway.Account{
			Name: types.NamespacedName{Namespace: "shop", Name: "shop"}, AppID: appID,
			Token: token.NewValue(strings.Repeat("t", 136)), ExpiresAt: time.Now().Add(24 * time.Hour),
		},
	}})}
	relay, err := gateway.NewRelay(gateway.RelayOptions{
		Endpoints: []string{upstream}, CAFile: caFile, Source: source, MaxInFlight: 8 * pool, MaxInFlightPerClient: 8 * pool, Now: time.Now,
	})
	if err != nil {
		return nil, err
	}
	file, err := os.Create(filepath.Join(dir, "audit.log")) //nolint:gosec // the benchmark's own folder
	if err != nil {
		return nil, err
	}
	audit := gateway.NewAudit(file, time.Now)
	metrics, err := gateway.NewMetrics(prometheus.NewRegistry(), relay, audit, nil)
	if err != nil {
		return nil, err
	}
	return gateway.New(gateway.Options{
		Source: source, Relay: relay, Now: time.Now,
		Record: func(c *gateway.Call) {
			audit.Record(c)
			metrics.Record(c)
		},
	}), nil
}

// startProxy starts a proxy on the first core, in a process of its own.
func startProxy(ctx context.Context, kind, upstream, caFile, dir string) (*proxy, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return start(ctx, append(os.Environ(), "GOMAXPROCS=1"), "taskset", "-c", "0", self, "proxy", kind, upstream, caFile, dir)
}
