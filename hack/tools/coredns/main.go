// SPDX-License-Identifier: Apache-2.0

// Command coredns is CoreDNS with no more than a cluster without a way out needs: names of Services, from the API server.
// The plugins that CoreDNS has by default would bring the SDK of several clouds.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	// The plugins that the Corefile may name.
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
)

func main() {
	// Their order in a server, whatever that of the Corefile.
	dnsserver.Directives = []string{"health", "ready", "errors", "cache", "kubernetes"}
	coremain.Run()
}
