// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/internal/kube"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
)

// These are the results of an attempt.
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

	// foreign counts by the UID of a resource, and checked is the Unix time of its last check.
	mu      sync.Mutex
	foreign map[types.UID]int
	checked map[types.UID]int64
}

// NewRecorder returns a Recorder whose metrics are registered.
func NewRecorder(registry prometheus.Registerer) (*Recorder, error) {
	seconds := []float64{.05, .1, .25, .5, 1, 2, 5, 10, 30, 60, 120, 300}
	r := &Recorder{
		refreshes: counterVec(nameRefresh),
		lateness:  histogram(nameLateness, seconds),
		delivery:  histogram(nameDelivery, seconds),
		foreign:   map[types.UID]int{},
		checked:   map[types.UID]int64{},

		podsReached:  counter(namePodsReached),
		podFailures:  counter(namePodFailures),
		podsDelivery: histogram(namePodsDelivery, seconds),
	}
	// rate and increase would not see the first event of a counter that starts to exist with it.
	for _, reason := range refresh.FetchReasons() {
		r.refreshes.WithLabelValues(string(reason), resultSuccess)
		r.refreshes.WithLabelValues(string(reason), resultFailure)
	}
	return r, register(registry, r.refreshes, r.lateness, r.delivery, r.podsReached, r.podFailures, r.podsDelivery)
}

// Refreshed counts a new token that was written to a Secret.
func (r *Recorder) Refreshed(reason refresh.Reason) {
	r.refreshes.WithLabelValues(string(reason), resultSuccess).Inc()
}

// RefreshFailed counts an attempt that returned no token or could not store it.
func (r *Recorder) RefreshFailed(reason refresh.Reason) {
	r.refreshes.WithLabelValues(string(reason), resultFailure).Inc()
}

// Rotated records how late a token was replaced.
func (r *Recorder) Rotated(late time.Duration) { r.lateness.Observe(max(0, late).Seconds()) }

// Delivered records the time from the call that returned a token until the Secret held it.
func (r *Recorder) Delivered(after time.Duration) { r.delivery.Observe(max(0, after).Seconds()) }

// PodReached counts a pod that was annotated with a new token's fingerprint.
func (r *Recorder) PodReached() { r.podsReached.Inc() }

// PodDeliveryFailed counts a pod that could not be annotated, or a list of pods that failed.
func (r *Recorder) PodDeliveryFailed() { r.podFailures.Inc() }

// PodsDelivered records the time from when a Secret held a token until its last pod was annotated.
func (r *Recorder) PodsDelivered(after time.Duration) {
	r.podsDelivery.Observe(max(0, after).Seconds())
}

// ForeignFetch counts a token of a resource that died early.
func (r *Recorder) ForeignFetch(uid types.UID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.foreign[uid]++
}

// Checked records when WeChat last confirmed the token of a resource.
func (r *Recorder) Checked(uid types.UID, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.checked[uid] = at.Unix()
}

// Gone forgets a resource that does not exist any more.
func (r *Recorder) Gone(uid types.UID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.foreign, uid)
	delete(r.checked, uid)
}

// ofResources returns copies of what is known of the resources.
func (r *Recorder) ofResources() (foreign map[types.UID]int, checked map[types.UID]int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.foreign), maps.Clone(r.checked)
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

// NewNamespaces returns a function that records whether the operator can read a namespace of --namespaces.
func NewNamespaces(registry prometheus.Registerer) (served func(namespace string, yes bool), err error) {
	f := family(nameNamespaceServed)
	return kube.ServedGauge(registry, f.Name, f.Help)
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
