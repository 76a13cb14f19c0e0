// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Lists are the lists that a program's caches ask for in each namespace, by resource: the kind of the list and its apiVersion.
type Lists map[string]metav1.TypeMeta

// namespaces lets the caches fill although a namespace of --namespaces is gone or may not be read. Until its first list works, it counts
// as empty: the other namespaces are served meanwhile, and the informers ask again.
type namespaces struct {
	next  http.RoundTripper
	lists Lists
	log   logr.Logger
	// served is told whether a namespace can be read.
	served func(namespace string, yes bool)

	mu sync.Mutex
	// listed has the paths of lists and watches that have worked at least once.
	listed map[string]bool
	// refused has, by namespace, the lists and watches whose last answer was a refusal. A namespace without any is served.
	refused map[string]map[question]bool
}

// question is a list or a watch.
type question struct {
	path  string
	watch bool
}

// Namespaces returns a wrapper for the transport of a program that serves these namespaces. served is told whether each can be read.
func Namespaces(
	names []string, lists Lists, log logr.Logger, served func(namespace string, yes bool),
) func(http.RoundTripper) http.RoundTripper {
	return func(next http.RoundTripper) http.RoundTripper {
		if len(names) == 0 {
			return next
		}
		return &namespaces{next: next, lists: lists, log: log, served: served, listed: map[string]bool{}, refused: map[string]map[question]bool{}}
	}
}

// ServedGauge returns a function for Namespaces that records in a metric, which is registered, whether each namespace can be read.
func ServedGauge(registry prometheus.Registerer, name, help string) (served func(namespace string, yes bool), err error) {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{"namespace"})
	if err := registry.Register(g); err != nil {
		return nil, fmt.Errorf("registering the metric of namespaces: %w", err)
	}
	return func(namespace string, yes bool) {
		value := 0.0
		if yes {
			value = 1
		}
		g.WithLabelValues(namespace).Set(value)
	}, nil
}

// RoundTrip implements http.RoundTripper.
func (n *namespaces) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := n.next.RoundTrip(req)
	namespace, resource, ok := n.listOf(req)
	if err != nil || !ok {
		return res, err
	}
	asked := question{path: req.URL.Path, watch: req.URL.Query().Has("watch")}
	switch res.StatusCode {
	case http.StatusOK:
		n.note(asked, namespace, true)
	case http.StatusForbidden: // also where a namespace is gone; "not found" would say that there is no CRD
		if n.note(asked, namespace, false) && !asked.watch {
			_ = res.Body.Close()
			return emptyList(req, n.lists[resource]), nil
		}
	}
	return res, nil
}

// note records an answer, and reports whether what was asked for counts as empty for now. What could be read once does not, because the
// cache still has it.
func (n *namespaces) note(asked question, namespace string, worked bool) (empty bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	refused := n.refused[namespace]
	before := len(refused) > 0
	switch {
	case worked:
		n.listed[asked.path] = true
		delete(refused, asked)
		if asked.watch { // it begins with what a list would give, so no list follows
			delete(refused, question{path: asked.path})
		}
	case refused == nil:
		n.refused[namespace] = map[question]bool{asked: true}
	default:
		refused[asked] = true
	}
	after := len(n.refused[namespace]) > 0
	switch {
	case after && !before:
		n.log.Info("a namespace of --namespaces cannot be read, the others are served: does it exist, and is this program's Role bound in it?",
			"namespace", namespace)
	case before && !after:
		n.log.Info("a namespace of --namespaces can be read now", "namespace", namespace)
	}
	n.served(namespace, !after)
	return !worked && !n.listed[asked.path]
}

// listOf returns the namespace and the resource of a list or watch by which a cache is filled, and whether the request is one.
func (n *namespaces) listOf(req *http.Request) (namespace, resource string, ok bool) {
	if !patient(req) || req.URL.Query().Get("limit") == "1" { // a StartingCache asks for one object, and fills nothing
		return "", "", false
	}
	parts := strings.Split(strings.Trim(req.URL.Path, "/"), "/")
	at := slices.Index(parts, "namespaces")
	if at < 0 || len(parts) != at+3 || n.lists[parts[at+2]] == (metav1.TypeMeta{}) {
		return "", "", false
	}
	return parts[at+1], parts[at+2], true
}

func emptyList(req *http.Request, list metav1.TypeMeta) *http.Response {
	body := fmt.Sprintf(`{"kind":%q,"apiVersion":%q,"metadata":{},"items":[]}`, list.Kind, list.APIVersion)
	return &http.Response{
		Status: fmt.Sprintf("%d %s", http.StatusOK, http.StatusText(http.StatusOK)), StatusCode: http.StatusOK,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: req,
		Header: http.Header{"Content-Type": {"application/json"}}, ContentLength: int64(len(body)),
		Body: io.NopCloser(strings.NewReader(body)),
	}
}
