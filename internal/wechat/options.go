// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// DefaultEndpoints are WeChat's general host and its disaster recovery host, in the form of the flag:
// https://developers.weixin.qq.com/doc/service/guide/dev/api
const DefaultEndpoints = "https://api.weixin.qq.com,https://api2.weixin.qq.com"

// The defaults of Options.
const (
	DefaultTimeout     = 5 * time.Second
	DefaultMaxInFlight = 32
	defaultUserAgent   = "wechat-token-operator"
)

// Options configure a Client. The zero value is WeChat itself with the defaults.
type Options struct {
	// Endpoints are scheme and host of the servers, in the order in which they are tried; default
	// DefaultEndpoints. http:// is accepted for loopback addresses alone.
	Endpoints []string
	// CAFile names a PEM file of certificates that are trusted besides the system's.
	CAFile string
	// Timeout is the longest time of one attempt; default 5 s.
	Timeout time.Duration
	// MaxInFlight is the largest number of requests under way; default 32.
	MaxInFlight int
	// UserAgent is sent with each request; default the operator's name.
	UserAgent string
	// Wall is the local wall clock; default time.Now. Results need no monotonic reading.
	Wall func() time.Time
	// Monotonic is the local monotonic clock, whose results have such a reading; default time.Now.
	Monotonic func() time.Time
	// Observe is called after each request to an endpoint, at the same time by several goroutines; default none.
	Observe func(Call)
}

// complete checks the options and returns them with the defaults filled in.
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

// parseEndpoint does not repeat the value in its errors: it may hold a password.
func parseEndpoint(raw string) (*url.URL, error) {
	u, err := url.Parse(strings.TrimSpace(raw))
	switch {
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

// isLoopback asks no resolver: a name could mean another address tomorrow.
func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}
