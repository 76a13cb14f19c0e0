// SPDX-License-Identifier: Apache-2.0

// Command qrcode serves Mini Program codes. It shows how a service uses the token that the operator keeps in a Secret: it follows
// the mounted volume, and never fetches a token itself.
package main

import (
	"context"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "qrcode:", err)
		os.Exit(1)
	}
}

type options struct {
	addr     string
	tokenDir string
	wechat   string
	caFile   string
	page     string
	release  string
}

func parse(args []string, stderr io.Writer) (o options, err error) {
	flags := flag.NewFlagSet("qrcode", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.addr, "addr", ":8080", "address to listen on")
	flags.StringVar(&o.tokenDir, "token-dir", "/var/run/wechat", "folder where the Secret with the token is mounted")
	flags.StringVar(&o.wechat, "wechat-url", "https://api.weixin.qq.com", "base URL of WeChat's API")
	flags.StringVar(&o.caFile, "wechat-ca-file", "", "certificate authorities to trust for it besides the system's")
	flags.StringVar(&o.page, "page", "", "page of the Mini Program that the code opens; empty: its first one")
	flags.StringVar(&o.release, "env-version", "release", "version of the Mini Program that the code opens: release, trial or develop")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if u, err := url.Parse(o.wechat); err != nil || u.Scheme != "https" || u.Host == "" {
		return o, errors.New("--wechat-url must be an https URL: the token travels in it")
	}
	return o, nil
}

// run serves until ctx ends.
func run(ctx context.Context, args []string, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	volume := newVolume(o.tokenDir)
	client, err := newClient(o)
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.addr)
	if err != nil {
		return err
	}
	server := newServer(newHandler(&codes{options: o, volume: volume, client: client}, log))
	ended := make(chan error, 2)
	go func() { ended <- volume.follow(ctx, log) }()
	go func() { ended <- server.Serve(limit(listener, maxConnections)) }()
	select {
	case <-ctx.Done():
	case err = <-ended:
	}
	// What is under way may end.
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return errors.Join(err, server.Shutdown(end))
}

// newClient has a deadline and follows no redirect, because the URL holds the token.
func newClient(o options) (*http.Client, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert,forbidigo // its own copy
	transport.MaxResponseHeaderBytes = 64 << 10
	if o.caFile != "" {
		pem, err := os.ReadFile(o.caFile)
		if err != nil {
			return nil, fmt.Errorf("--wechat-ca-file: %w", err)
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			return nil, err
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--wechat-ca-file: %s holds no certificate", o.caFile)
		}
		transport.TLSClientConfig.RootCAs = pool
	}
	return &http.Client{
		Transport: transport, Timeout: 15 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}
