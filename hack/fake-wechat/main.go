// SPDX-License-Identifier: Apache-2.0

// fake-wechat runs the stand-in for WeChat's API alone, for demos and for tests in other processes. When
// it is ready it prints one line of JSON, {"url":…,"adminURL":…,"ca":…}; SIGINT or SIGTERM ends it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	default:
		fmt.Fprintln(os.Stderr, "fake-wechat:", err)
		os.Exit(1)
	}
}

// ready is what is printed for whoever started the program.
type ready struct {
	URL      string `json:"url"`
	AdminURL string `json:"adminURL,omitempty"`
	// CA is the certificate to trust, with --tls.
	CA string `json:"ca,omitempty"`
}

// run serves until ctx ends.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	server, err := start(o, stderr)
	if err != nil {
		return err
	}
	defer server.Close()

	line := ready{URL: server.URL(), CA: string(server.CACertPEM())}
	var failed <-chan error
	if o.adminAddr != "" {
		admin, done, err := serveAdmin(ctx, o.adminAddr, server.AdminHandler())
		if err != nil {
			return fmt.Errorf("--admin-addr: %w", err)
		}
		defer func() { _ = admin.Close() }()
		line.AdminURL, failed = "http://"+admin.Addr, done
	}
	if err := json.NewEncoder(stdout).Encode(line); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return fmt.Errorf("the admin side ended: %w", err)
	}
}

// start makes the server that the options describe.
func start(o options, stderr io.Writer) (*wechattest.Server, error) {
	if o.verbose {
		o.server.OnCall = logTo(slog.New(slog.NewTextHandler(stderr, nil)))
	}
	server, err := wechattest.NewServer(o.server)
	if err != nil {
		return nil, err
	}
	for _, app := range o.apps {
		server.SetApp(app)
	}
	if o.caOut != "" {
		if err := os.WriteFile(o.caOut, server.CACertPEM(), 0o644); err != nil {
			server.Close()
			return nil, fmt.Errorf("--tls-ca-out: %w", err)
		}
	}
	return server, nil
}

// serveAdmin serves the admin side until the server that it returns is closed. Its Addr is the real one.
func serveAdmin(ctx context.Context, addr string, handler http.Handler) (*http.Server, <-chan error, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, nil, err
	}
	server := &http.Server{Addr: listener.Addr().String(), Handler: handler, ReadHeaderTimeout: 30 * time.Second}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	return server, done, nil
}

// logTo writes a line for each call. A Call holds no token and no AppSecret, unless somebody sent one in
// the place of the appid.
func logTo(log *slog.Logger) func(wechattest.Call) {
	return func(c wechattest.Call) {
		appID := c.AppID
		if !wechattest.IsAppID(appID) {
			appID = "-"
		}
		log.Info("call", "endpoint", c.Endpoint, "appID", appID, "errcode", c.Errcode, "status", c.HTTPStatus,
			"forced", c.Forced, "minted", c.Minted, "fault", c.Fault, "finished", c.Finished, "from", c.RemoteAddr)
	}
}
