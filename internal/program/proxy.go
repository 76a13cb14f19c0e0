// SPDX-License-Identifier: Apache-2.0

package program

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"k8s.io/client-go/rest"

	"github.com/wechat-token-operator/wechat-token-operator/internal/plain"
)

// CheckProxy returns an error for a proxy setting that net/http would silently ignore. Calls would then come from another address than
// the one on WeChat's IP allowlist. The error does not contain the value, which may include a password.
func CheckProxy(getenv func(string) string) error {
	for _, name := range []string{"HTTPS_PROXY", "https_proxy"} {
		value := plain.Trim(getenv(name))
		if value == "" {
			continue
		}
		if hidden := plain.Hidden(value); hidden != "" {
			return fmt.Errorf("%s is not a valid URL: it has %s", name, hidden)
		}
		if at := strings.IndexByte(value, ' '); at >= 0 {
			return fmt.Errorf("%s is not a valid URL: it has a space at position %d", name, len([]rune(value[:at]))+1)
		}
		if !strings.Contains(value, "://") {
			value = "http://" + value
		}
		u, err := url.Parse(value)
		if err != nil || u.Host == "" {
			return fmt.Errorf("%s is not a valid URL, write it like http://proxy.example.com:3128", name)
		}
		if !slices.Contains([]string{"http", "https", "socks5", "socks5h"}, u.Scheme) {
			return fmt.Errorf("%s must begin with http://, https:// or socks5://", name)
		}
	}
	return nil
}

// cleanNoProxy separates the hosts of NO_PROXY by commas. A list with a line for each would otherwise be one name that matches nothing.
func cleanNoProxy() error {
	for _, name := range []string{"NO_PROXY", "no_proxy"} {
		value, set := os.LookupEnv(name)
		if !set {
			continue
		}
		hosts := strings.FieldsFunc(value, func(r rune) bool { return r == ',' || plain.Trim(string(r)) == "" })
		if err := os.Setenv(name, strings.Join(hosts, ",")); err != nil {
			return fmt.Errorf("reading %s: %w", name, err)
		}
	}
	return nil
}

// WithoutProxy keeps the client from the proxy that the environment names, which is WeChat's alone. The API server may not be reachable
// through it, and its name need not be one that NO_PROXY matches. A proxy that the kubeconfig names is kept.
func WithoutProxy(config *rest.Config) {
	if config.Proxy == nil {
		config.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil } //nolint:nilnil // nil stands for no proxy
	}
}
