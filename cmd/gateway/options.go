// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	"github.com/wechat-token-operator/wechat-token-operator/internal/plain"
	"github.com/wechat-token-operator/wechat-token-operator/internal/program"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat"
)

// Flags whose values are lists.
const (
	flagEndpoints  = "wechat-endpoints"
	flagNamespaces = "namespaces"
)

// options holds the gateway's flags. Those that the operator has too mean the same.
type options struct {
	wechatEndpoints   string
	wechatCAFile      string
	wechatTimeout     time.Duration
	wechatMaxInFlight int

	namespaces string

	bindAddress      string
	tlsCertFile      string
	tlsKeyFile       string
	tokenAudience    string
	maxBufferedBytes int64
	auditLog         string

	servers program.Servers

	version bool
	zap     zap.Options

	// complete sets namespaceList.
	namespaceList []string
}

func (o *options) bind(fs *flag.FlagSet) {
	fs.StringVar(&o.wechatEndpoints, flagEndpoints, wechat.DefaultEndpoints,
		"Base URLs of WeChat's API, separated by commas; the next one is tried when one cannot be reached. "+
			"https only, except for loopback addresses.")
	fs.StringVar(&o.wechatCAFile, "wechat-ca-file", "",
		"PEM file with certificate authorities to trust for WeChat's API besides the system's, for a TLS-inspecting proxy.")
	fs.DurationVar(&o.wechatTimeout, "wechat-timeout", 30*time.Second,
		"Time that WeChat may take to begin its answer once it has the whole request.")
	fs.IntVar(&o.wechatMaxInFlight, "wechat-max-in-flight", 1024, "Maximum number of calls to WeChat at the same time.")
	fs.StringVar(&o.namespaces, flagNamespaces, "", "Namespaces whose WeChatAppClients may call, separated by commas. Empty: all.")
	fs.StringVar(&o.bindAddress, "bind-address", ":8080", "Address at which programs call the gateway.")
	fs.StringVar(&o.tlsCertFile, "tls-cert-file", "",
		"PEM file with the certificate that callers are served with. It is read again when it changes. Empty: callers use HTTP.")
	fs.StringVar(&o.tlsKeyFile, "tls-key-file", "", "PEM file with the private key of --tls-cert-file.")
	fs.StringVar(&o.tokenAudience, "token-audience", "wechat-gateway",
		"Audience that the token of a ServiceAccount must have to be accepted.")
	fs.Int64Var(&o.maxBufferedBytes, "max-buffered-bytes", 16<<20,
		"Maximum size of all request bodies that are held in memory at the same time, to be sent with their length or a second time.")
	fs.StringVar(&o.auditLog, "audit-log", "-", `File for a line of JSON about each call. "-": the standard output. Empty: none.`)
	o.servers.Bind(fs)
	fs.BoolVar(&o.version, "version", false, "Print the version and exit.")
	o.zap.BindFlags(fs)
}

// complete validates the flags and sets the fields that are derived from them.
func (o *options) complete() (err error) {
	if o.namespaceList, err = program.Namespaces(o.namespaces); err != nil {
		return err
	}
	switch {
	case program.IsDisabled(o.bindAddress):
		return errors.New("--bind-address: the gateway must listen somewhere")
	case (o.tlsCertFile == "") != (o.tlsKeyFile == ""):
		return errors.New("--tls-cert-file and --tls-key-file: set both or none")
	case plain.Trim(o.tokenAudience) == "":
		return errors.New("--token-audience: it is empty, so that every token would be accepted")
	case o.maxBufferedBytes < 1<<20:
		return fmt.Errorf("--max-buffered-bytes: %d is less than 1 MiB", o.maxBufferedBytes)
	case o.wechatMaxInFlight < 1:
		return fmt.Errorf("--wechat-max-in-flight: %d is less than 1", o.wechatMaxInFlight)
	case o.wechatTimeout <= 0:
		return fmt.Errorf("--wechat-timeout: %s is not positive", o.wechatTimeout)
	}
	if err := o.servers.Check(); err != nil {
		return err
	}
	return program.CheckProxy(os.Getenv)
}
