// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/http"
	"sync"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
)

// rememberingMapper keeps what discovery said of a kind. controller-runtime's client for metadata, which every write of the operator
// uses, asks its mapper each time, and the search through all groups of the cluster takes as much memory as the write itself.
type rememberingMapper struct {
	apimeta.RESTMapper

	mu       sync.Mutex
	mappings map[schema.GroupVersionKind]*apimeta.RESTMapping
}

func newMapper(config *rest.Config, httpClient *http.Client) (apimeta.RESTMapper, error) {
	mapper, err := apiutil.NewDynamicRESTMapper(config, httpClient)
	if err != nil {
		return nil, err
	}
	return remember(mapper), nil
}

func remember(mapper apimeta.RESTMapper) apimeta.RESTMapper {
	return &rememberingMapper{RESTMapper: mapper, mappings: map[schema.GroupVersionKind]*apimeta.RESTMapping{}}
}

// RESTMapping remembers answers, not errors: a kind may be installed later.
func (m *rememberingMapper) RESTMapping(kind schema.GroupKind, versions ...string) (*apimeta.RESTMapping, error) {
	if len(versions) != 1 {
		return m.RESTMapper.RESTMapping(kind, versions...)
	}
	key := kind.WithVersion(versions[0])
	m.mu.Lock()
	known := m.mappings[key]
	m.mu.Unlock()
	if known != nil {
		return known, nil
	}
	mapping, err := m.RESTMapper.RESTMapping(kind, versions...)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mappings[key] = mapping
	return mapping, nil
}
