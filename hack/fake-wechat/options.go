// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/internal/plain"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// options are the flags, checked.
type options struct {
	server    wechattest.Options
	adminAddr string
	caOut     string
	apps      []wechattest.App
	verbose   bool
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	var anywhere bool
	flags := flag.NewFlagSet("fake-wechat", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.server.Addr, "addr", "127.0.0.1:0", "address of the API")
	flags.StringVar(&o.adminAddr, "admin-addr", "127.0.0.1:0", "loopback address of the admin side; empty: none")
	flags.DurationVar(&o.server.Life, "life", 2*time.Hour, "life of a token, in whole seconds")
	flags.BoolVar(&o.server.TLS, "tls", false, "serve HTTPS, with a certificate of a CA of its own")
	flags.Func("tls-name", "name for the certificate besides localhost, such as that of a Service; may be repeated", func(name string) error {
		o.server.TLSNames = append(o.server.TLSNames, name)
		return nil
	})
	flags.StringVar(&o.caOut, "tls-ca-out", "", "file to write the CA's certificate to")
	flags.Func("app", "account as ID:SECRET; may be repeated", func(value string) error {
		id, secret, _ := strings.Cut(value, ":")
		if id == "" || secret == "" {
			return errors.New("must be ID:SECRET")
		}
		if hidden := plain.Hidden(value); hidden != "" {
			return fmt.Errorf("has %s", hidden)
		}
		o.apps = append(o.apps, wechattest.App{ID: id, Secret: secret})
		return nil
	})
	flags.BoolVar(&o.server.AutoApps, "auto-apps", false, "accept any appid of the right form, with the AppSecret that comes first")
	flags.BoolVar(&o.server.LegacyGrandparentLives, "legacy-grandparent-lives", false,
		"let a Legacy token live out its five minutes when a second mint follows; else it dies at once")
	flags.BoolVar(&anywhere, "allow-non-loopback", false, "let --addr be reached from other machines")
	flags.BoolVar(&o.verbose, "verbose", false, "log each call, without tokens and AppSecrets")
	if err := flags.Parse(plain.Args(args)); err != nil {
		return options{}, err
	}
	if flags.NArg() > 0 {
		return options{}, fmt.Errorf("%q is no flag", flags.Arg(0))
	}
	var err error
	flags.Visit(func(f *flag.Flag) {
		if hidden := plain.Hidden(f.Value.String()); hidden != "" {
			err = fmt.Errorf("--%s: %q has %s", f.Name, f.Value, hidden)
		}
	})
	if err != nil {
		return options{}, err
	}
	return o, o.check(anywhere)
}

func (o options) check(anywhere bool) error {
	const hands = "it hands out tokens to anybody who asks"
	switch {
	case !anywhere && !isLoopback(o.server.Addr):
		return fmt.Errorf("--addr %s can be reached from other machines, and %s: use a loopback address, or --allow-non-loopback",
			o.server.Addr, hands)
	case o.adminAddr != "" && !isLoopback(o.adminAddr):
		return fmt.Errorf("--admin-addr %s is no loopback address, and %s", o.adminAddr, hands)
	case o.server.Life < time.Second || o.server.Life%time.Second != 0:
		return errors.New("--life must be whole seconds, at least 1s")
	case o.caOut != "" && !o.server.TLS:
		return errors.New("--tls-ca-out needs --tls")
	case len(o.server.TLSNames) > 0 && !o.server.TLS:
		return errors.New("--tls-name needs --tls")
	}
	return nil
}

// isLoopback asks no resolver: a name could mean any address.
func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}
