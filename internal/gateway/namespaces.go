// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// NewNamespaces returns a function that records whether a namespace of --namespaces can be read, in a metric that is registered.
func NewNamespaces(registry prometheus.Registerer) (served func(namespace string, yes bool), err error) {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "wechat_gateway_namespace_served", Help: "1 if the namespace of --namespaces can be read, 0 if not.",
	}, []string{"namespace"})
	if err := registry.Register(g); err != nil {
		return nil, fmt.Errorf("registering the metrics of namespaces: %w", err)
	}
	return func(namespace string, yes bool) {
		value := 0.0
		if yes {
			value = 1
		}
		g.WithLabelValues(namespace).Set(value)
	}, nil
}
