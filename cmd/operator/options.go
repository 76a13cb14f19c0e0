// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	"github.com/wechat-token-operator/wechat-token-operator/internal/failpoint"
	"github.com/wechat-token-operator/wechat-token-operator/internal/program"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat"
)

// Flags whose values are lists.
const (
	flagEndpoints  = "wechat-endpoints"
	flagNamespaces = "namespaces"
	flagSelector   = "watch-label-selector"
)

// options holds the operator's flags. Their defaults suit 10,000 resources.
type options struct {
	wechatEndpoints   string
	wechatCAFile      string
	wechatTimeout     time.Duration
	wechatMaxInFlight int

	namespaces              string
	watchLabelSelector      string
	maxConcurrentReconciles int
	requireCredentialsLabel bool
	gatewayURL              string
	gatewayCAFile           string
	promptDelivery          bool

	kubeAPIQPS   float64
	kubeAPIBurst int

	leaderElect             bool
	leaderElectionID        string
	leaderElectionNamespace string

	servers          program.Servers
	pprofBindAddress string

	version bool
	zap     zap.Options

	// complete sets selector, namespaceList and gateway.
	selector      labels.Selector
	namespaceList []string
	gateway       *gateway
}

func (o *options) bind(fs *flag.FlagSet) {
	fs.StringVar(&o.wechatEndpoints, flagEndpoints, wechat.DefaultEndpoints,
		"Base URLs of WeChat's API, separated by commas; the next one is tried when one cannot be reached. "+
			"https only, except for loopback addresses.")
	fs.StringVar(&o.wechatCAFile, "wechat-ca-file", "",
		"PEM file with certificate authorities to trust for WeChat's API besides the system's, for a TLS-inspecting proxy.")
	fs.DurationVar(&o.wechatTimeout, "wechat-timeout", 5*time.Second, "Time that one attempt at one WeChat endpoint may take.")
	fs.IntVar(&o.wechatMaxInFlight, "wechat-max-in-flight", 64, "Maximum number of calls to WeChat at the same time.")
	fs.StringVar(&o.namespaces, flagNamespaces, "", "Namespaces to serve, separated by commas. Empty: all.")
	fs.StringVar(&o.watchLabelSelector, flagSelector, "",
		"Serve only WeChatAppTokens and WeChatAppClients that match this label selector, to split them over several operators. "+
			"All resources of one Legacy account must be in one of them.")
	fs.IntVar(&o.maxConcurrentReconciles, "max-concurrent-reconciles", 64, "Maximum number of resources that are worked on at the same time.")
	fs.BoolVar(&o.requireCredentialsLabel, "require-credentials-label", false,
		`Use only credentials Secrets that carry the label wechat.apptoken.dev/credentials: "true".`)
	fs.StringVar(&o.gatewayURL, "gateway-url", "",
		"URL at which programs reach the gateway, such as https://wechat-gateway.wechat.svc. "+
			"Empty: there is no gateway, and WeChatAppClients say so.")
	fs.StringVar(&o.gatewayCAFile, "gateway-ca-file", "",
		"PEM file with the certificate authorities of the gateway, for programs that would not trust it otherwise. "+
			"It is read again when it changes.")
	fs.BoolVar(&o.promptDelivery, "prompt-delivery", false,
		"Tell pods of a new token at once where spec.target.delivery is Prompt. It needs the right to list and patch pods.")
	fs.Float64Var(&o.kubeAPIQPS, "kube-api-qps", -1,
		"Requests per second to the API server. -1: no limit; the API server's priority and fairness sets it.")
	fs.IntVar(&o.kubeAPIBurst, "kube-api-burst", 0, "Burst of requests to the API server; used with a positive --kube-api-qps.")
	fs.BoolVar(&o.leaderElect, "leader-elect", false, "Elect a leader, so that several replicas can run.")
	fs.StringVar(&o.leaderElectionID, "leader-election-id", "",
		"Name of the Lease. Default: made from --namespaces and --watch-label-selector.")
	fs.StringVar(&o.leaderElectionNamespace, "leader-election-namespace", "", "Namespace of the Lease. Default: the operator's own.")
	o.servers.Bind(fs)
	fs.StringVar(&o.pprofBindAddress, "pprof-bind-address", "",
		"Loopback address of Go's profiles, such as 127.0.0.1:6060. Empty: none.")
	fs.BoolVar(&o.version, "version", false, "Print the version and exit.")
	o.zap.BindFlags(fs)
}

// complete validates the flags and sets the fields that are derived from them.
func (o *options) complete() error {
	selector, err := labels.Parse(o.watchLabelSelector)
	if err != nil {
		return fmt.Errorf("--watch-label-selector: %w", err)
	}
	o.selector = selector
	if o.namespaceList, err = program.Namespaces(o.namespaces); err != nil {
		return err
	}
	if o.wechatTimeout <= 0 {
		return fmt.Errorf("--wechat-timeout: %s is not positive", o.wechatTimeout)
	}
	if o.wechatMaxInFlight < 1 {
		return fmt.Errorf("--wechat-max-in-flight: %d is less than 1", o.wechatMaxInFlight)
	}
	if o.maxConcurrentReconciles < 1 {
		return fmt.Errorf("--max-concurrent-reconciles: %d is less than 1", o.maxConcurrentReconciles)
	}
	if o.kubeAPIQPS == 0 {
		return fmt.Errorf("--kube-api-qps: 0 would stop all requests; use -1 for no limit")
	}
	if !isLoopback(o.pprofBindAddress) {
		return fmt.Errorf("--pprof-bind-address: %q is not a loopback address; use 127.0.0.1:6060 and kubectl port-forward", o.pprofBindAddress)
	}
	if o.gateway, err = parseGateway(o.gatewayURL, o.gatewayCAFile); err != nil {
		return err
	}
	if err := o.checkLease(); err != nil {
		return err
	}
	if err := o.servers.Check(); err != nil {
		return err //nolint:wrapcheck // it names the flag
	}
	if err := program.CheckProxy(os.Getenv); err != nil {
		return err
	}
	if o.leaderElectionID == "" {
		o.leaderElectionID = o.defaultLeaderElectionID()
	}
	return nil
}

// checkLease validates what names the Lease.
func (o *options) checkLease() error {
	if problems := validation.IsDNS1123Subdomain(o.leaderElectionID); o.leaderElectionID != "" && len(problems) > 0 {
		return fmt.Errorf("--leader-election-id: %q is not a valid name of a Lease: %s", o.leaderElectionID, problems[0])
	}
	if problems := validation.IsDNS1123Label(o.leaderElectionNamespace); o.leaderElectionNamespace != "" && len(problems) > 0 {
		return fmt.Errorf("--leader-election-namespace: %q is not a valid name of a namespace: %s", o.leaderElectionNamespace, problems[0])
	}
	return nil
}

// isLoopback reports whether a listener on the address is reachable from this machine only. With "" and "0" nothing listens. A host name
// is not accepted, because it could stand for any address.
func isLoopback(address string) bool {
	if program.IsDisabled(address) {
		return true
	}
	at, err := netip.ParseAddrPort(address)
	return err == nil && at.Addr().Unmap().IsLoopback()
}

// defaultLeaderElectionID returns a name that is the same for the replicas of an operator, and different for operators that serve
// different resources, so that these do not exclude each other.
func (o *options) defaultLeaderElectionID() string {
	sum := sha256.Sum256([]byte(o.selector.String() + "\n" + strings.Join(o.namespaceList, ",")))
	return "wechat-token-operator-" + hex.EncodeToString(sum[:4])
}

func (o *options) wechat(userAgent string, observe func(wechat.Call)) wechat.Options {
	return wechat.Options{
		Endpoints:   strings.Split(o.wechatEndpoints, ","),
		CAFile:      o.wechatCAFile,
		Timeout:     o.wechatTimeout,
		MaxInFlight: o.wechatMaxInFlight,
		UserAgent:   userAgent,
		Observe:     observe,
		Wall:        failpoint.Wall(),
	}
}
