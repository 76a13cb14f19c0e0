// SPDX-License-Identifier: Apache-2.0

// Command h5 serves a page that uses WeChat's JS-SDK, and the signatures that the page needs. It signs with the ticket that the operator
// keeps in a mounted Secret, and calls neither WeChat nor Kubernetes.
package main

import (
	"context"
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
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Getenv, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "h5:", err)
		os.Exit(1)
	}
}

type options struct {
	addr      string
	ticketDir string
	hosts     []string
	scriptURL string
}

// parse reads the flags. The hosts may come from the environment variable H5_HOSTS instead.
func parse(args []string, getenv func(string) string, stderr io.Writer) (o options, err error) {
	var hosts string
	flags := flag.NewFlagSet("h5", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.addr, "addr", ":8080", "address to listen on")
	flags.StringVar(&o.ticketDir, "ticket-dir", "/var/run/wechat", "folder where app_id and jsapi_ticket of the Secret are mounted")
	flags.StringVar(&hosts, "hosts", getenv("H5_HOSTS"), "hosts whose pages may have signatures, with commas: shop.example.com; "+
		"by default the variable H5_HOSTS")
	flags.StringVar(&o.scriptURL, "script-url", "https://res.wx.qq.com/open/js/jweixin-1.6.0.js", "address of WeChat's JS-SDK")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("%q is not a flag", flags.Arg(0))
	}
	if o.hosts, err = splitHosts(hosts); err != nil {
		return o, err
	}
	if !safeScript(o.scriptURL) {
		return o, errors.New("--script-url must be an https URL: whoever can change the script controls the page")
	}
	return o, nil
}

// splitHosts returns the hosts of a list with commas, each as a browser writes it in an address.
func splitHosts(list string) (hosts []string, err error) {
	for host := range strings.SplitSeq(list, ",") {
		host = strings.ToLower(strings.TrimSpace(host))
		if host == "" {
			continue
		}
		if u, err := url.Parse("//" + host); err != nil || u.Host != host {
			return nil, fmt.Errorf("--hosts: %q is not a host such as shop.example.com, without https:// and path", host)
		}
		hosts = append(hosts, host)
	}
	if len(hosts) == 0 {
		return nil, errors.New("--hosts or H5_HOSTS must name the host of your pages, such as shop.example.com")
	}
	return hosts, nil
}

// safeScript reports whether nobody on the way can change the script at an address.
func safeScript(address string) bool {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Scheme == "https" || u.Scheme == "http" && ip != nil && ip.IsLoopback()
}

// run serves until ctx ends.
func run(ctx context.Context, args []string, getenv func(string) string, stderr io.Writer) error {
	o, err := parse(args, getenv, stderr)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.addr)
	if err != nil {
		return err
	}
	log.Info("serving", "address", listener.Addr().String(), "hosts", o.hosts)
	server := newServer(newHandler(o, time.Now, log))
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case <-ctx.Done():
	case err = <-ended:
	}
	// What is under way may end.
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return errors.Join(err, server.Shutdown(end))
}

// newServer returns a server that limits how long a connection lasts and how large a request is.
func newServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      10 * time.Second,
		IdleTimeout:       30 * time.Second,
		MaxHeaderBytes:    8 << 10,
	}
}
