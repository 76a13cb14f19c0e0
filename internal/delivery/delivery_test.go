// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/fence"
)

// stub is an API server with a namespace of pods, which fails as a test tells it to. The controller's tests use a real one.
type stub struct {
	client.Reader
	client.Writer

	mu sync.Mutex
	// told holds the annotation of each pod.
	told map[string]string
	// patch returns the error of a patch, or nil.
	patch    func(pod string) error
	list     func() error
	patches  []time.Time
	outcomes []Outcome
	reached  int
	failed   int
	took     []time.Duration
}

func (s *stub) List(_ context.Context, l client.ObjectList, _ ...client.ListOption) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.list != nil {
		if err := s.list(); err != nil {
			return err
		}
	}
	list, ok := l.(*corev1.PodList)
	if !ok {
		return fmt.Errorf("a list of %T", l)
	}
	for name, fingerprint := range s.told {
		list.Items = append(list.Items, corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{v1alpha1.AnnotationTokenFingerprint: fingerprint}},
			Spec: corev1.PodSpec{
				Volumes:    []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "token"}}}},
				Containers: []corev1.Container{{VolumeMounts: []corev1.VolumeMount{{Name: "v"}}}},
			},
		})
	}
	return nil
}

func (s *stub) Patch(_ context.Context, o client.Object, p client.Patch, _ ...client.PatchOption) error {
	raw, err := p.Data(o)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.patches = append(s.patches, time.Now())
	if s.patch != nil {
		if err := s.patch(o.GetName()); err != nil {
			return err
		}
	}
	_, after, _ := strings.Cut(string(raw), `token-fingerprint":"`)
	s.told[o.GetName()], _, _ = strings.Cut(after, `"`)
	return nil
}

func (s *stub) PodReached()        { s.mu.Lock(); defer s.mu.Unlock(); s.reached++ }
func (s *stub) PodDeliveryFailed() { s.mu.Lock(); defer s.mu.Unlock(); s.failed++ }
func (s *stub) PodsDelivered(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.took = append(s.took, d)
}

// run runs a test with a Deliverer for this number of pods, in a bubble of synctest.
func run(t *testing.T, s *stub, pods int, test func(d *Deliverer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s.told = map[string]string{}
		for i := range pods {
			s.told[fmt.Sprint("pod-", i)] = "before"
		}
		d := New(Options{Live: s, Client: s, Recorder: s, Now: time.Now, Log: logr.Discard(),
			Done: func(_ context.Context, _ types.NamespacedName, _ types.UID, o Outcome) {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.outcomes = append(s.outcomes, o)
			}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- d.Start(ctx) }()
		defer func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()
		test(d)
	})
}

// pass lets time pass and waits until all goroutines are idle.
func (s *stub) pass(d time.Duration) {
	s.mu.Lock()   // orders what the test has read before what the stub writes from now on
	s.mu.Unlock() //nolint:staticcheck // only the order matters
	time.Sleep(d)
	synctest.Wait()
}

func job(fingerprint string) Job {
	return Job{Owner: types.NamespacedName{Namespace: "ns", Name: "shop"}, UID: "u", Secret: "token", Fingerprint: fingerprint, Since: time.Now()}
}

func unavailable() error { return apierrors.NewServiceUnavailable("webhook quotes: secret-of-a-pod") }

func forbidden() error {
	return apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "pod", fmt.Errorf("webhook quotes: secret-of-a-pod"))
}

// TestRate checks that a thousand pods take ten seconds.
func TestRate(t *testing.T) {
	s := &stub{}
	run(t, s, 1000, func(d *Deliverer) {
		d.Deliver(job("a"))
		s.pass(time.Minute)
		if len(s.patches) != 1000 || len(s.outcomes) != 1 || s.outcomes[0].Err != nil || s.outcomes[0].Reached != 1000 {
			t.Fatalf("%d patches, outcomes %+v", len(s.patches), s.outcomes)
		}
		if took := s.patches[999].Sub(s.patches[0]); took < 9*time.Second || took > 11*time.Second {
			t.Errorf("it took %s", took)
		}
		if s.reached != 1000 || s.failed != 0 || len(s.took) != 1 || s.took[0] < 9*time.Second {
			t.Errorf("recorded %d, %d, %v", s.reached, s.failed, s.took)
		}
		// The same job again causes no further patch.
		d.Deliver(job("a"))
		s.pass(time.Minute)
		if len(s.patches) != 1000 {
			t.Errorf("%d patches after a second delivery", len(s.patches))
		}
	})
}

// TestRetry checks that a failed patch is repeated with a back-off, for that pod alone, and is reported from the third attempt on.
func TestRetry(t *testing.T) {
	failures := 4
	s := &stub{}
	s.patch = func(pod string) error {
		if pod == "pod-1" && failures > 0 {
			failures--
			return unavailable()
		}
		return nil
	}
	run(t, s, 3, func(d *Deliverer) {
		d.Deliver(job("a"))
		s.pass(2500 * time.Millisecond) // attempts at 0 s and 1 s
		if len(s.patches) != 4 || len(s.outcomes) != 0 {
			t.Fatalf("%d patches, outcomes %+v", len(s.patches), s.outcomes)
		}
		s.pass(time.Second) // at 3 s
		if len(s.outcomes) != 1 || s.outcomes[0].Reached != 2 || s.outcomes[0].Pods != 3 || Forbidden(s.outcomes[0].Err) {
			t.Fatalf("outcomes %+v", s.outcomes)
		}
		if text := s.outcomes[0].Err.Error(); !strings.Contains(text, "1 of 3 pods") || strings.Contains(text, "quotes") {
			t.Errorf("it says %q", text)
		}
		s.pass(time.Minute) // at 7 s and 15 s
		if last := s.outcomes[len(s.outcomes)-1]; last.Err != nil || last.Reached != 3 || len(s.patches) != 7 {
			t.Errorf("%d patches, outcomes %+v", len(s.patches), s.outcomes)
		}
	})
}

// TestForbidden checks that a failure which needs a person is reported at once, and is retried at least every five minutes.
func TestForbidden(t *testing.T) {
	s := &stub{patch: func(string) error { return forbidden() }}
	run(t, s, 100, func(d *Deliverer) {
		d.Deliver(job("a"))
		s.pass(time.Second / 2)
		if len(s.outcomes) != 1 || !Forbidden(s.outcomes[0].Err) || strings.Contains(s.outcomes[0].Err.Error(), "quotes") {
			t.Fatalf("outcomes %+v", s.outcomes)
		}
		if len(s.patches) != giveUpAfter {
			t.Errorf("%d patches that all were refused", len(s.patches))
		}
		s.pass(30 * time.Minute)
		s.mu.Lock()
		s.patch = nil
		s.mu.Unlock()
		s.pass(5*time.Minute + 10*time.Second)
		if last := s.outcomes[len(s.outcomes)-1]; last.Err != nil || last.Reached != 100 {
			t.Errorf("the permission was not noticed: %+v", last)
		}
	})
	s = &stub{list: forbidden}
	run(t, s, 1, func(d *Deliverer) {
		d.Deliver(job("a"))
		s.pass(time.Second / 2)
		if len(s.outcomes) != 1 || !s.outcomes[0].Unknown || !Forbidden(s.outcomes[0].Err) || len(s.patches) != 0 || s.failed != 1 {
			t.Errorf("outcomes %+v", s.outcomes)
		}
	})
}

// TestPolicy checks that no pod is patched unless an admission policy confines what the deliverer changes, and that it begins when one does.
func TestPolicy(t *testing.T) {
	for name, c := range map[string]struct {
		err                error
		unbound, forbidden bool
	}{
		"none":            {fence.ErrUnbound, true, false},
		"forbidden":       {forbidden(), false, true},
		"it is not known": {unavailable(), false, false},
	} {
		t.Run(name, func(t *testing.T) {
			s, verdict := &stub{}, c.err
			run(t, s, 3, func(d *Deliverer) {
				d.CheckPolicy = func(_ context.Context, pod types.NamespacedName) error {
					if pod.Namespace != "ns" || s.told[pod.Name] == "" {
						t.Errorf("asked about %s", pod)
					}
					return verdict
				}
				d.Deliver(job("a"))
				s.pass(time.Minute)
				if len(s.patches) > 0 || len(s.outcomes) == 0 {
					t.Fatalf("%d patches, %d outcomes", len(s.patches), len(s.outcomes))
				}
				o := s.outcomes[len(s.outcomes)-1]
				if o.Pods != 3 || o.Reached != 0 || o.Unknown || Unbound(o.Err) != c.unbound || Forbidden(o.Err) != c.forbidden {
					t.Errorf("outcome %+v", o)
				}
				if strings.Contains(o.Err.Error(), "quotes") {
					t.Errorf("the message quotes the API server: %v", o.Err)
				}
				verdict = nil
				s.pass(retryMax + 10*time.Second)
				if o := s.outcomes[len(s.outcomes)-1]; o.Err != nil || o.Reached != 3 || len(s.patches) != 3 {
					t.Errorf("afterwards %+v, %d patches", o, len(s.patches))
				}
			})
		})
	}
}

// TestPodGone checks that a deleted pod is no failure.
func TestPodGone(t *testing.T) {
	s := &stub{patch: func(pod string) error {
		if pod == "pod-0" {
			return apierrors.NewNotFound(schema.GroupResource{Resource: "pods"}, pod)
		}
		return nil
	}}
	run(t, s, 2, func(d *Deliverer) {
		d.Deliver(job("a"))
		s.pass(time.Second / 2)
		if len(s.outcomes) != 1 || s.outcomes[0].Err != nil || s.outcomes[0].Pods != 1 || s.outcomes[0].Reached != 1 || s.failed != 0 {
			t.Errorf("outcomes %+v", s.outcomes)
		}
	})
}

// TestSuperseded checks that a newer token replaces one that is being delivered, and that a cancelled job ends.
func TestSuperseded(t *testing.T) {
	s := &stub{}
	run(t, s, 1000, func(d *Deliverer) {
		d.Deliver(job("a"))
		s.pass(time.Second)
		d.Deliver(job("b"))
		s.pass(time.Minute)
		for pod, fingerprint := range s.told {
			if fingerprint != "b" {
				t.Fatalf("%s has %s", pod, fingerprint)
			}
		}
		if len(s.outcomes) != 1 || s.outcomes[0].Fingerprint != "b" || len(s.patches) > 1200 {
			t.Errorf("%d patches, outcomes %+v", len(s.patches), s.outcomes)
		}
		d.Deliver(job("c"))
		s.pass(time.Second)
		d.Cancel(job("c").Owner)
		s.pass(time.Minute)
		if n := len(s.patches); n > 1400 || len(s.outcomes) != 1 {
			t.Errorf("%d patches after a cancellation, outcomes %+v", n, s.outcomes)
		}
	})
}
