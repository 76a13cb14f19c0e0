// SPDX-License-Identifier: Apache-2.0

package metrics

import "github.com/prometheus/client_golang/prometheus"

// Namespaces tells which namespaces of --namespaces the operator can read.
type Namespaces struct{ served *prometheus.GaugeVec }

// NewNamespaces returns a Namespaces whose metric is registered.
func NewNamespaces(registry prometheus.Registerer) (*Namespaces, error) {
	f := family(nameNamespaceServed)
	n := &Namespaces{served: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: f.Name, Help: f.Help}, f.Labels)}
	return n, register(registry, n.served)
}

// Served records whether a namespace can be read.
func (n *Namespaces) Served(namespace string, yes bool) {
	value := 0.0
	if yes {
		value = 1
	}
	n.served.WithLabelValues(namespace).Set(value)
}
