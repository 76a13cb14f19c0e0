// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/cli-runtime/pkg/printers"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// retryWatch is the time between two attempts to reconnect.
const retryWatch = 2 * time.Second

// news is one message of a watch: all resources, one change, or an error. Only one field is set.
type news struct {
	// all holds every resource. It is sent after each connection and is not nil even if there are none.
	all []v1alpha1.WeChatAppToken
	// changed is a resource that was added or changed, and gone is one that was deleted.
	changed, gone *v1alpha1.WeChatAppToken
	err           error
}

// observe lists and watches resources until ctx ends, and reconnects when the connection is lost. It returns an error if the first
// list fails.
func (c *cluster) observe(ctx context.Context, namespace string, opts []client.ListOption) (<-chan news, error) {
	l, err := c.list(ctx, namespace, opts...)
	if err != nil {
		return nil, err
	}
	out := make(chan news)
	send := func(n news) bool {
		select {
		case out <- n:
			return true
		case <-ctx.Done():
			return false
		}
	}
	go func() {
		defer close(out)
		for send(news{all: append([]v1alpha1.WeChatAppToken{}, l.Items...)}) {
			err := c.observeFrom(ctx, l, namespace, opts, send)
			for ctx.Err() == nil {
				if err != nil && !send(news{err: err}) {
					return
				}
				if !pause(ctx, retryWatch) {
					return
				}
				if l, err = c.list(ctx, namespace, opts...); err == nil {
					break
				}
			}
		}
	}()
	return out, nil
}

// observeFrom watches from the version of a list on, until the connection ends. It returns nil if the watch ended in order, or if its
// version is too old.
func (c *cluster) observeFrom(ctx context.Context, l *v1alpha1.WeChatAppTokenList, namespace string, opts []client.ListOption,
	send func(news) bool,
) error {
	from := client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: l.ResourceVersion}}
	opts = append(append([]client.ListOption{&from}, opts...), client.InNamespace(namespace))
	w, err := c.Watch(ctx, &v1alpha1.WeChatAppTokenList{}, opts...)
	if err != nil {
		return explain(err, "watch WeChatAppTokens"+ofNamespace(namespace))
	}
	defer w.Stop()
	for e := range w.ResultChan() {
		t, ok := e.Object.(*v1alpha1.WeChatAppToken)
		if !ok {
			return nil // an error event, most often because the version is too old: the caller lists again
		}
		n := news{changed: t}
		if e.Type == watch.Deleted {
			n = news{gone: t}
		}
		if !send(n) {
			return nil
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// follow carries out list -w.
func (o *listOptions) follow(
	ctx context.Context, c *cluster, namespace string, printer printers.ResourcePrinter, opts []client.ListOption,
) error {
	updates, err := c.observe(ctx, namespace, opts)
	if err != nil {
		return err
	}
	if printer == nil && o.app.escapes {
		return newScreen(o).run(updates)
	}
	return o.stream(updates, printer)
}

// stream prints each resource once, and again whenever it changes. It serves outputs that are no terminal.
func (o *listOptions) stream(updates <-chan news, printer printers.ResourcePrinter) error {
	seen := map[types.NamespacedName]string{}
	header := !o.noHeaders
	var widths []int
	show := func(t *v1alpha1.WeChatAppToken) error {
		key := client.ObjectKeyFromObject(t)
		if seen[key] == t.ResourceVersion {
			return nil
		}
		seen[key] = t.ResourceVersion
		if printer != nil {
			return printer.PrintObj(t, o.app.Out)
		}
		row := o.table([]v1alpha1.WeChatAppToken{*t}, o.app.now(), !header)
		row.least = widths
		widths = row.widths()
		for _, line := range row.lines(o.app.paint) {
			fmt.Fprintln(o.app.Out, line)
		}
		header = false
		return nil
	}
	for n := range updates {
		if n.err != nil {
			fmt.Fprintf(o.app.ErrOut, "%s\nTrying again.\n", strings.Join(cleanLines(n.err.Error()), "\n"))
		}
		sortTokens(n.all)
		for i := range n.all {
			if err := show(&n.all[i]); err != nil {
				return err
			}
		}
		if n.changed != nil {
			if err := show(n.changed); err != nil {
				return err
			}
		}
		if n.gone != nil {
			delete(seen, client.ObjectKeyFromObject(n.gone))
		}
	}
	return nil
}
