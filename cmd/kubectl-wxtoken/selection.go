// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	setting "github.com/wechat-token-operator/wechat-token-operator/internal/plain"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
)

// selection chooses resources without naming them. Its zero value chooses none.
type selection struct {
	allNamespaces bool
	selector      string
}

func (s *selection) used() bool { return s.allNamespaces || s.selector != "" }

// check checks that a command line names resources or selects them, and not both.
func (s *selection) check(cmd *cobra.Command, args []string) error {
	switch {
	case s.used() && len(args) > 0:
		return usage("name resources, or choose them with -l or -A, but not both")
	case s.used():
		return nil
	}
	return someNames(cmd, args)
}

// nameOf returns the name by which the output calls a resource.
func (s *selection) nameOf(t *v1alpha1.WeChatAppToken) string {
	if s.allNamespaces {
		return t.Namespace + "/" + t.Name
	}
	return t.Name
}

// targets returns the resources that args names or s selects and for which the operator would carry out a request. The error is about the
// others; those that are suspended are left out without an error if they were only selected.
func (a *app) targets(
	ctx context.Context, c *cluster, kind refresh.RequestKind, args []string, s *selection,
) ([]v1alpha1.WeChatAppToken, error) {
	if s.used() {
		return a.selected(ctx, c, kind, s)
	}
	var (
		out  []v1alpha1.WeChatAppToken
		errs []error
	)
	for _, arg := range args {
		name, err := bareName(arg)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		t, err := c.get(ctx, name)
		if err == nil {
			err = requestable(lookAt(t, a.now()), kind)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out = append(out, *t)
	}
	return out, joinErrors(errs)
}

func (a *app) selected(ctx context.Context, c *cluster, kind refresh.RequestKind, s *selection) ([]v1alpha1.WeChatAppToken, error) {
	chosen, err := labels.Parse(setting.Trim(s.selector))
	if err != nil {
		return nil, usage("--selector: %v", err)
	}
	namespace := c.namespace
	if s.allNamespaces {
		namespace = ""
	}
	l, err := c.list(ctx, namespace, client.MatchingLabelsSelector{Selector: chosen})
	if err != nil {
		return nil, err
	}
	if len(l.Items) == 0 {
		return nil, failed("This shows those that exist:\nkubectl wxtoken list -A", "no WeChatAppToken was selected")
	}
	sortTokens(l.Items)
	var (
		out  []v1alpha1.WeChatAppToken
		errs []error
	)
	for i := range l.Items {
		look := lookAt(&l.Items[i], a.now())
		switch err := requestable(look, kind); {
		case err == nil:
			out = append(out, l.Items[i])
		case look.Spec.Suspend || !look.DeletionTimestamp.IsZero():
			fmt.Fprintf(a.Out, "%s: left out, because it is %s\n", s.nameOf(&l.Items[i]), left(look))
		default:
			errs = append(errs, err)
		}
	}
	return out, joinErrors(errs)
}

// left says why a resource is left out of a selection.
func left(l look) string {
	if l.Spec.Suspend {
		return "suspended"
	}
	return "being deleted"
}
