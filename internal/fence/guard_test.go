// SPDX-License-Identifier: Apache-2.0

package fence

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr/funcr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// stub is an API server that answers dry runs as a test tells it to.
type stub struct {
	client.Client

	pods []string
	// pod and secret return the answers to the dry runs.
	pod, secret  func() error
	tried, wrote int
}

func (s *stub) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	l, ok := list.(*metav1.PartialObjectMetadataList)
	if !ok {
		return fmt.Errorf("a list of %T", list)
	}
	for _, name := range s.pods {
		l.Items = append(l.Items, metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}})
	}
	return nil
}

func (s *stub) Patch(_ context.Context, _ client.Object, _ client.Patch, opts ...client.PatchOption) error {
	s.tried++
	o := &client.PatchOptions{}
	if o.ApplyOptions(opts); len(o.DryRun) == 0 {
		s.wrote++
	}
	return s.pod()
}

func (s *stub) Create(_ context.Context, object client.Object, opts ...client.CreateOption) error {
	o := &client.CreateOptions{}
	if o.ApplyOptions(opts); len(o.DryRun) == 0 {
		s.wrote++
	}
	if err := s.secret(); !errors.Is(err, errBound) {
		return err
	}
	return policyRefusal("secrets", object.GetName(), secretMessages[2])
}

// errBound stands for the policy's own refusal.
var errBound = errors.New("bound")

func policyRefusal(resource, name, message string) error {
	return apierrors.NewForbidden(schema.GroupResource{Resource: resource}, name,
		fmt.Errorf("ValidatingAdmissionPolicy 'x-%s' with binding 'x' denied request: %s", resource, message))
}

var (
	podRefused  = policyRefusal("pods", "pod", podMessages[3])
	noRight     = apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "pod", errors.New(`user "x" cannot patch resource "pods"`))
	apiIsBroken = apierrors.NewInternalError(errors.New("etcd"))
)

// after returns a function that returns the answers in turn, and then the last one again and again.
func after(answers ...error) func() error {
	i := -1
	return func() error {
		i = min(i+1, len(answers)-1)
		return answers[i]
	}
}

// TestGuardTells follows what the log says at a start, and for how long the guard goes on trying.
func TestGuardTells(t *testing.T) {
	const (
		secretsFree = "no admission policy confines what this operator writes to Secrets"
		secretsOpen = "it is not known"
		secretsOK   = "an admission policy confines what this operator writes to Secrets"
		podsFree    = "prompt delivery stays off, because"
		podsOpen    = "prompt delivery stays off until"
		podsOK      = "prompt delivery is on"
	)
	for _, c := range []struct {
		name   string
		stub   stub
		prompt bool
		logged []string
		// ends is how long the guard tries; zero if it goes on.
		ends time.Duration
	}{
		{name: "no policy, no prompt delivery", stub: stub{secret: after(nil)}, logged: []string{secretsFree}, ends: 3 * soon},
		{name: "a policy for Secrets", stub: stub{secret: after(errBound)}, logged: []string{secretsOK}, ends: time.Nanosecond},
		{name: "one that came a moment later", stub: stub{secret: after(nil, nil, errBound)}, logged: []string{secretsOK}, ends: 2 * soon},
		{name: "Secrets are refused", stub: stub{secret: after(noRight)}, logged: []string{secretsOpen}, ends: 3 * soon},
		{name: "both", prompt: true, stub: stub{secret: after(errBound), pods: []string{"pod"}, pod: after(podRefused)},
			logged: []string{secretsOK, podsOK}, ends: time.Nanosecond},
		{name: "none for pods", prompt: true, stub: stub{secret: after(errBound), pods: []string{"pod"}, pod: after(nil)},
			logged: []string{secretsOK, podsFree}},
		{name: "no right on pods", prompt: true, stub: stub{secret: after(errBound), pods: []string{"pod"}, pod: after(noRight)},
			logged: []string{secretsOK, podsOpen}},
		{name: "no pod", prompt: true, stub: stub{secret: after(errBound)}, logged: []string{secretsOK, podsOpen}},
		{name: "repaired after some minutes", prompt: true,
			stub:   stub{secret: after(errBound), pods: []string{"pod"}, pod: after(nil, nil, nil, nil, nil, apiIsBroken, podRefused)},
			logged: []string{secretsOK, podsFree, podsOpen, podsOK}, ends: 3*soon + 3*later},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				var lines []string
				log := funcr.New(func(_, args string) { lines = append(lines, args) }, funcr.Options{})
				g := &Guard{Client: &c.stub, PromptDelivery: c.prompt, Log: log}
				began := time.Now()
				if err := g.Start(ctx); err != nil {
					t.Error(err)
				}
				if took := time.Since(began); c.ends > 0 && took != c.ends.Truncate(time.Second) || c.ends == 0 && took != time.Hour {
					t.Errorf("it tried for %s, want %s", took, c.ends)
				}
				if len(lines) != len(c.logged) {
					t.Fatalf("logged %q, want %q", lines, c.logged)
				}
				for i, line := range lines {
					if !strings.Contains(line, c.logged[i]) || strings.Contains(line, "cannot patch") {
						t.Errorf("logged %q, want %q", line, c.logged[i])
					}
				}
				if c.stub.wrote > 0 {
					t.Errorf("%d requests were no dry runs", c.stub.wrote)
				}
			})
		})
	}
}

// TestCheckPod checks that deliveries cause few dry runs, and none once the policy refused one.
func TestCheckPod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stub{pod: after(nil, apiIsBroken, podRefused)}
		g := &Guard{Client: s}
		check := func() error { return g.CheckPod(t.Context(), types.NamespacedName{Namespace: "shop", Name: "pod"}) }
		for range 100 {
			if err := check(); !errors.Is(err, ErrUnbound) {
				t.Fatal(err)
			}
		}
		time.Sleep(askAgain)
		if err := check(); !apierrors.IsInternalError(err) {
			t.Error(err)
		}
		time.Sleep(askAgain)
		for range 100 {
			if err := check(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
		}
		if s.tried != 3 {
			t.Errorf("%d dry runs", s.tried)
		}
	})
}
