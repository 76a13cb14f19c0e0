// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
)

// The results of an attempt.
const (
	resultSuccess = "success"
	resultFailure = "failure"
)

// Recorder counts what the controller does. It is safe for concurrent use.
type Recorder struct {
	refreshes *prometheus.CounterVec
	lateness  prometheus.Histogram
	delivery  prometheus.Histogram

	podsReached  prometheus.Counter
	podFailures  prometheus.Counter
	podsDelivery prometheus.Histogram

	// foreign belongs to resources: the collector shows it for those that exist, and drops the rest.
	mu      sync.Mutex
	foreign map[types.UID]int
}

// NewRecorder makes the metrics of the controller and registers them.
func NewRecorder(registry prometheus.Registerer) (*Recorder, error) {
	seconds := []float64{.05, .1, .25, .5, 1, 2, 5, 10, 30, 60, 120, 300}
	r := &Recorder{
		refreshes: counterVec(nameRefresh),
		lateness:  histogram(nameLateness, seconds),
		delivery:  histogram(nameDelivery, seconds),
		foreign:   map[types.UID]int{},

		podsReached:  counter(namePodsReached),
		podFailures:  counter(namePodFailures),
		podsDelivery: histogram(namePodsDelivery, seconds),
	}
	// A counter that begins with its first event would hide that event from rate and increase.
	for _, reason := range refresh.FetchReasons() {
		r.refreshes.WithLabelValues(string(reason), resultSuccess)
		r.refreshes.WithLabelValues(string(reason), resultFailure)
	}
	return r, register(registry, r.refreshes, r.lateness, r.delivery, r.podsReached, r.podFailures, r.podsDelivery)
}

// Refreshed counts a Secret that got a token which it did not hold.
func (r *Recorder) Refreshed(reason refresh.Reason) {
	r.refreshes.WithLabelValues(string(reason), resultSuccess).Inc()
}

// RefreshFailed counts an attempt that brought no token, or could not store it.
func (r *Recorder) RefreshFailed(reason refresh.Reason) {
	r.refreshes.WithLabelValues(string(reason), resultFailure).Inc()
}

// Rotated tells how long after its due time a token was replaced.
func (r *Recorder) Rotated(late time.Duration) { r.lateness.Observe(max(0, late).Seconds()) }

// Delivered tells how long after the call for it a token was in the Secret.
func (r *Recorder) Delivered(after time.Duration) { r.delivery.Observe(max(0, after).Seconds()) }

// PodReached counts a pod that was told of a new token.
func (r *Recorder) PodReached() { r.podsReached.Inc() }

// PodDeliveryFailed counts a pod that could not be told, or a list of pods that failed.
func (r *Recorder) PodDeliveryFailed() { r.podFailures.Inc() }

// PodsDelivered tells how long after its Secret the last pod was told of a token.
func (r *Recorder) PodsDelivered(after time.Duration) {
	r.podsDelivery.Observe(max(0, after).Seconds())
}

// ForeignFetch counts a token of this resource that died early.
func (r *Recorder) ForeignFetch(uid types.UID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.foreign[uid]++
}

// foreignFetches gives the counts of the resources that exist and forgets all others.
func (r *Recorder) foreignFetches(exists map[types.UID]bool) map[types.UID]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make(map[types.UID]int, len(r.foreign))
	for uid, n := range r.foreign {
		if !exists[uid] {
			delete(r.foreign, uid)
			continue
		}
		out[uid] = n
	}
	return out
}

func counterVec(name string) *prometheus.CounterVec {
	f := family(name)
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: f.Name, Help: f.Help}, f.Labels)
}

func counter(name string) prometheus.Counter {
	f := family(name)
	return prometheus.NewCounter(prometheus.CounterOpts{Name: f.Name, Help: f.Help})
}

func histogramVec(name string, buckets []float64) *prometheus.HistogramVec {
	f := family(name)
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: f.Name, Help: f.Help, Buckets: buckets}, f.Labels)
}

func histogram(name string, buckets []float64) prometheus.Histogram {
	f := family(name)
	return prometheus.NewHistogram(prometheus.HistogramOpts{Name: f.Name, Help: f.Help, Buckets: buckets})
}

func register(registry prometheus.Registerer, collectors ...prometheus.Collector) error {
	errs := make([]error, 0, len(collectors))
	for _, c := range collectors {
		errs = append(errs, registry.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("registering metrics: %w", err)
	}
	return nil
}
