// SPDX-License-Identifier: Apache-2.0

// Command demo shows the operator's main job on a control plane of its own: a real etcd and kube-apiserver, a stand-in for
// WeChat whose tokens live for seconds, and the operator's binary. Each figure that it prints is read from the
// stand-in's ledger, the API server's audit log or the Secret. What does not happen ends it with exit code 1.
//
// With --gateway it shows the gateway instead: a program with an unmodified SDK calls WeChat while its key and the token change.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
)

type options struct {
	operator string
	sample   string
	keep     bool
	relays   relays
	observe  observation
	out      io.Writer
}

func main() {
	opts := options{out: os.Stdout}
	assets := flag.String("assets", os.Getenv("KUBEBUILDER_ASSETS"), "Folder with etcd, kube-apiserver and kubectl.")
	flag.StringVar(&opts.operator, "operator", "bin/operator", "The operator's binary.")
	flag.StringVar(&opts.sample, "sample", "config/samples/wechat_v1alpha1_wechatapptoken.yaml", "The Secret and the WeChatAppToken to apply.")
	flag.BoolVar(&opts.keep, "keep", false, "Leave everything running until Ctrl-C.")
	flag.StringVar(&opts.observe.prometheus, "prometheus", "",
		"The binary of a Prometheus that observes the operator; the story is then that of the dashboard.")
	flag.StringVar(&opts.observe.dashboard, "dashboard", "config/grafana/dashboard.json", "The dashboard whose queries are run.")
	flag.StringVar(&opts.observe.rules, "rules", "config/prometheus/rules.yaml", "The PrometheusRule whose alerts are evaluated.")
	flag.StringVar(&opts.relays.gateway, "gateway", "",
		"The gateway's binary; the story is then that of an SDK that calls WeChat through it.")
	flag.StringVar(&opts.relays.program, "program", "bin/demo/silenceper", "The program of examples/gateway that uses the SDK.")
	flag.Parse()
	// The control plane finds its binaries by this variable.
	if err := os.Setenv("KUBEBUILDER_ASSETS", *assets); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	ctrl.SetLogger(logr.Discard())
	klog.SetLogger(logr.Discard()) // it would tell of requests that the end of a step cuts off
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, opts)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "\nThe demo failed: %v\n", err)
		os.Exit(1)
	}
}

// run tells the story, and cleans up behind it.
func run(ctx context.Context, opts options) (err error) {
	dir, err := os.MkdirTemp("", "wechat-token-operator-demo-")
	if err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s := newStage(opts, dir)
	defer func() { err = errors.Join(err, s.close()) }()
	chapters := s.mainJob()
	switch {
	case opts.observe.on():
		chapters = s.observation()
	case opts.relays.on():
		chapters = s.relayed()
	}
	if err := tell(ctx, chapters); err != nil {
		s.explain(context.WithoutCancel(ctx))
		return err
	}
	if opts.keep {
		return s.wait(ctx, filepath.Join(dir, "kubeconfig"))
	}
	return nil
}
