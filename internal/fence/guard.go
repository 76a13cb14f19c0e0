// SPDX-License-Identifier: Apache-2.0

package fence

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/internal/kube"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
)

const (
	// patience is the number of attempts before the log tells that a policy does not bind the operator, and soon the time between them. An
	// API server enforces a policy some seconds after it was installed.
	patience = 4
	soon     = 2 * time.Second
	// later is the time between further attempts, so that a policy that is repaired is noticed without a restart.
	later = time.Minute
	// askAgain is how long a verdict other than "bound" is kept, so that many deliveries do not cause as many dry runs.
	askAgain = time.Second
)

var errNoPod = errors.New("there is no pod to try it on")

// Guard tells at the start in the log which policies bind the operator, and keeps prompt delivery from pods until their policy does. It is
// a runnable of the manager and runs in the leader only.
type Guard struct {
	// Client makes dry runs and looks for a pod; see Probe.
	Client client.Client
	// Namespaces are those that the operator serves. Empty stands for all.
	Namespaces []string
	// PromptDelivery reports that the operator tells pods of new tokens, so that their policy matters.
	PromptDelivery bool
	Log            logr.Logger

	mu sync.Mutex
	// verdict is what the last dry run about pods came to, at the time asked; both are zero before the first one.
	verdict error
	asked   time.Time
}

// Start logs whether the policies bind the operator. It returns when all is known.
func (g *Guard) Start(ctx context.Context) error {
	g.secrets(ctx)
	if g.PromptDelivery {
		g.pods(ctx)
	}
	return nil
}

// CheckPod returns nil if the policy for pods binds the operator, and otherwise an error as Probe.Pod does. The policy is tried on this
// pod, unless the answer is known.
func (g *Guard) CheckPod(ctx context.Context, pod types.NamespacedName) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.asked.IsZero() && (g.verdict == nil || time.Since(g.asked) < askAgain) {
		return g.verdict
	}
	ctx, cancel := context.WithTimeout(ctx, kube.AnswerWithin)
	defer cancel()
	g.verdict, g.asked = Probe{g.Client}.Pod(ctx, pod), time.Now()
	return g.verdict
}

// secrets tries the policy for Secrets. It is optional, so nothing depends on it.
func (g *Guard) secrets(ctx context.Context) {
	namespaces := g.Namespaces
	if len(namespaces) == 0 {
		namespaces = []string{metav1.NamespaceDefault}
	}
	err := repeat(ctx, patience, func(int) (err error) {
		for _, namespace := range namespaces {
			// One that does not exist, for example, leaves the question open.
			if err = g.trySecret(ctx, namespace); err == nil || errors.Is(err, ErrUnbound) {
				return err
			}
		}
		return err
	})
	switch {
	case ctx.Err() != nil:
	case err == nil:
		g.Log.Info("an admission policy confines what this operator writes to Secrets")
	case errors.Is(err, ErrUnbound):
		g.Log.Info("no admission policy confines what this operator writes to Secrets; it is optional, see docs/permissions.md",
			"ifInstalled", "its matchConditions name another ServiceAccount than that of this operator")
	default:
		g.Log.Info("it is not known whether an admission policy confines what this operator writes to Secrets", "reason", describe(err))
	}
}

func (g *Guard) trySecret(ctx context.Context, namespace string) error {
	ctx, cancel := context.WithTimeout(ctx, kube.AnswerWithin)
	defer cancel()
	return Probe{g.Client}.Secret(ctx, namespace)
}

// pods tries the policy for pods until it binds the operator.
func (g *Guard) pods(ctx context.Context) {
	told := ""
	err := repeat(ctx, 0, func(attempt int) error {
		pod, err := g.anyPod(ctx)
		if err == nil {
			err = g.CheckPod(ctx, pod)
		} else if g.bound() {
			return nil // it was tried on a pod that was to be told of a token
		}
		if err != nil && attempt >= patience && describe(err) != told && ctx.Err() == nil {
			told = describe(err)
			g.tell(err)
		}
		return err
	})
	if err == nil {
		g.Log.Info("an admission policy confines what this operator changes on pods, prompt delivery is on")
	}
}

func (g *Guard) tell(err error) {
	if errors.Is(err, ErrUnbound) {
		g.Log.Error(err, "prompt delivery stays off, because no admission policy confines what this operator changes on pods",
			"help", "install the policy of config/prompt-delivery; its matchConditions must name the ServiceAccount of this operator")
		return
	}
	g.Log.Info("prompt delivery stays off until it is known that an admission policy confines what this operator changes on pods",
		"reason", describe(err))
}

func (g *Guard) bound() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.asked.IsZero() && g.verdict == nil
}

// anyPod returns a pod of a namespace that is served.
func (g *Guard) anyPod(ctx context.Context) (types.NamespacedName, error) {
	ctx, cancel := context.WithTimeout(ctx, kube.AnswerWithin)
	defer cancel()
	namespaces := g.Namespaces
	if len(namespaces) == 0 {
		namespaces = []string{metav1.NamespaceAll}
	}
	failed := errNoPod
	for _, namespace := range namespaces {
		list := &metav1.PartialObjectMetadataList{}
		list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("PodList"))
		if err := g.Client.List(ctx, list, client.InNamespace(namespace), client.Limit(1)); err != nil {
			failed = err
			continue
		}
		if len(list.Items) > 0 {
			return types.NamespacedName{Namespace: list.Items[0].Namespace, Name: list.Items[0].Name}, nil
		}
	}
	return types.NamespacedName{}, failed
}

// repeat calls try until it returns nil, ctx ends, or it was called limit times, where 0 stands for no limit.
func repeat(ctx context.Context, limit int, try func(attempt int) error) error {
	for attempt := 1; ; attempt++ {
		err := try(attempt)
		if err == nil || attempt == limit {
			return err
		}
		wait := soon
		if attempt >= patience {
			wait = later
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// describe describes an error without the API server's own words, which may quote an object.
func describe(err error) string {
	if errors.Is(err, errNoPod) || errors.Is(err, ErrUnbound) {
		return err.Error()
	}
	return target.AnswerMessage(err)
}
