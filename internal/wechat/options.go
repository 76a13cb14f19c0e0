// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/internal/plain"
)

// DefaultEndpoints lists WeChat's general host and its disaster recovery host, in the format of the flag. See
// https://developers.weixin.qq.com/doc/service/guide/dev/api.
const DefaultEndpoints = "https://api.weixin.qq.com,https://api2.weixin.qq.com"

// Defaults of Options.
const (
	DefaultTimeout     = 5 * time.Second
	DefaultMaxInFlight = 32
	defaultUserAgent   = "wechat-token-operator"
)

// Options configures a Client. With the zero value the Client calls WeChat itself and uses the defaults.
type Options struct {
	// Endpoints lists the servers by scheme and host, in the order in which they are tried. The default is DefaultEndpoints. The
	// scheme http is allowed only for loopback addresses.
	Endpoints []string
	// CAFile names a PEM file with certificates that are trusted in addition to the system's.
	CAFile string
	// Timeout limits each attempt. The default is 5 s.
	Timeout time.Duration
	// MaxInFlight limits the number of concurrent requests. The default is 32.
	MaxInFlight int
	// ConnsPerHost limits the connections to each host on which requests are sent that may be repeated. By default there is no limit.
	ConnsPerHost int
	// Dial opens the connections. The default is a net.Dialer with Timeout.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// UserAgent is sent with each request. The default is the operator's name.
	UserAgent string
	// Wall returns the local wall clock time. The default is time.Now. Its results need no monotonic reading.
	Wall func() time.Time
	// Monotonic returns times that have a monotonic reading. The default is time.Now.
	Monotonic func() time.Time
	// Observe, if not nil, is called after each request to an endpoint. Several goroutines may call it concurrently.
	Observe func(Call)
}

// complete validates the options and returns them with the defaults filled in.
func (o Options) complete() (Options, []*url.URL, error) {
	if len(o.Endpoints) == 0 {
		o.Endpoints = strings.Split(DefaultEndpoints, ",")
	}
	endpoints := make([]*url.URL, 0, len(o.Endpoints))
	for i, raw := range o.Endpoints {
		u, err := parseEndpoint(raw)
		if err != nil {
			return o, nil, &OptionError{Flag: "--wechat-endpoints", err: fmt.Errorf("entry %d: %w", i+1, err)}
		}
		endpoints = append(endpoints, u)
	}
	switch {
	case o.Timeout == 0:
		o.Timeout = DefaultTimeout
	case o.Timeout < 0:
		return o, nil, &OptionError{Flag: "--wechat-timeout", err: errors.New("must be greater than 0, such as 5s")}
	}
	switch {
	case o.MaxInFlight == 0:
		o.MaxInFlight = DefaultMaxInFlight
	case o.MaxInFlight < 0:
		return o, nil, &OptionError{Flag: "--wechat-max-in-flight", err: errors.New("must be greater than 0, such as 32")}
	}
	if o.UserAgent == "" {
		o.UserAgent = defaultUserAgent
	}
	return o, endpoints, nil
}

// parseEndpoint parses an entry of Options.Endpoints. Its errors do not quote the entry, which may contain a password.
func parseEndpoint(raw string) (*url.URL, error) {
	raw = plain.Trim(raw)
	u, err := url.Parse(raw)
	switch hidden := plain.Hidden(raw); {
	case hidden != "":
		return nil, fmt.Errorf("not a URL: it has %s", hidden)
	case err != nil:
		return nil, errors.New("not a URL, write it like https://api.weixin.qq.com")
	case u.Hostname() == "" || u.Opaque != "":
		return nil, errors.New("has no scheme or host, write it like https://api.weixin.qq.com")
	case u.User != nil:
		return nil, errors.New("must not hold a user name or password")
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return nil, errors.New("must be scheme and host alone, without path, query or fragment")
	case u.Scheme == "https", u.Scheme == "http" && isLoopback(u.Hostname()):
		return &url.URL{Scheme: u.Scheme, Host: u.Host}, nil
	case u.Scheme == "http":
		return nil, errors.New("must use https: http would show the AppSecret on the network and is accepted for loopback addresses alone")
	}
	return nil, errors.New("must use https")
}

// isLoopback reports whether host is localhost or a loopback address. It does not resolve names, because the result could change.
func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}
