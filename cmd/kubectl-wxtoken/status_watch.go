// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/fields"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// retell is how old what was read besides the resource may become while its story is watched: events, pods and the Secret's metadata.
const retell = 10 * time.Second

// follow is a run of status -w.
type follow struct {
	*app
	*statusOptions

	cluster *cluster
	canvas  canvas
	story   *story
	toldAt  time.Time
	// printed reports whether the story was printed before, on an output that is no terminal.
	printed bool
	// trouble is the error of the connection, or nil.
	trouble error
}

// followStatus carries out status -w. It ends when ctx does, or with an error when the resource is deleted.
func (a *app) followStatus(ctx context.Context, c *cluster, t *v1alpha1.WeChatAppToken, o *statusOptions) error {
	one := client.MatchingFieldsSelector{Selector: fields.OneTermEqualSelector("metadata.name", t.Name)}
	updates, err := c.observe(ctx, t.Namespace, []client.ListOption{one})
	if err != nil {
		return err
	}
	f := &follow{app: a, statusOptions: o, cluster: c, canvas: newCanvas(a.Out)}
	live := a.escapes && o.format == ""
	if live {
		fmt.Fprint(a.Out, hideCursor)
		defer fmt.Fprint(a.Out, showCursor)
	}
	tick := time.NewTicker(redraw)
	defer tick.Stop()
	for {
		select {
		case n, ok := <-updates:
			if !ok {
				return nil
			}
			err = f.take(ctx, n, t.Name)
			if err == nil && !live && n.err == nil {
				err = f.again()
			}
		case <-tick.C:
		}
		if err == nil && live {
			err = f.draw(ctx)
		}
		if err != nil {
			return unlessEnded(ctx, err)
		}
	}
}

// unlessEnded returns an error, or nil if it only came from the end of ctx, by which a watch ends in order.
func unlessEnded(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// take reads the story anew after a change. It returns an error if the resource of this name was deleted.
func (f *follow) take(ctx context.Context, n news, name string) error {
	if n.gone != nil || n.all != nil && len(n.all) == 0 {
		return failed("", "%s was deleted", name)
	}
	if f.trouble = n.err; n.err != nil {
		if !f.escapes {
			fmt.Fprintf(f.ErrOut, "%s\nTrying again.\n", strings.Join(cleanLines(n.err.Error()), "\n"))
		}
		return nil
	}
	t := n.changed
	if len(n.all) > 0 {
		t = &n.all[0]
	}
	return f.tell(ctx, t)
}

func (f *follow) tell(ctx context.Context, t *v1alpha1.WeChatAppToken) error {
	s, err := f.storyOf(ctx, f.cluster, t)
	if err == nil {
		f.story, f.toldAt = s, f.now()
	}
	return err
}

// again prints the story once more, for an output that is no terminal.
func (f *follow) again() error {
	if f.printed && f.format == "" {
		fmt.Fprintln(f.Out, "\n"+strings.Repeat("─", textWidth))
	}
	f.printed = true
	return f.story.print(f.Out, f.format)
}

// draw replaces the picture on the terminal.
func (f *follow) draw(ctx context.Context) error {
	if f.story == nil {
		return nil
	}
	if f.now().Sub(f.toldAt) >= retell && f.trouble == nil {
		if err := f.tell(ctx, f.story.WeChatAppToken); err != nil {
			return err
		}
	}
	f.story.look = lookAt(f.story.WeChatAppToken, f.now())
	var b bytes.Buffer
	f.story.write(&b)
	f.canvas.draw(f.Out, f.lines(b.String()))
	return nil
}

// lines returns the lines of a text that fit on the terminal, and the connection's error if it has one.
func (f *follow) lines(text string) []string {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if f.trouble != nil {
		what, _, _ := strings.Cut(f.trouble.Error(), "\n")
		lines = append(lines, "", f.paint.in(red, "Connection lost, trying again: "+clean(what)))
	}
	width, height := f.canvas.size()
	// The last line of the terminal is left for the cursor.
	if height > 2 && len(lines) > height-1 {
		lines = append(lines[:height-2], f.paint.in(dim, fmt.Sprintf("… and %d more lines: use a larger window", len(lines)-height+2)))
	}
	for i := range lines {
		lines[i] = fit(lines[i], width)
	}
	return lines
}
