// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

const (
	hideCursor, showCursor = "\x1b[?25l", "\x1b[?25h"
	// redraw is the time between two pictures.
	redraw = time.Second
	// keptHappenings is the number of happenings shown below the table.
	keptHappenings = 8
	// highlight is how long a happening has its colour.
	highlight = 10 * time.Second
)

// screen redraws the table on a terminal, with the latest changes below it.
type screen struct {
	*listOptions

	tokens     map[types.NamespacedName]v1alpha1.WeChatAppToken
	happenings []happening
	trouble    error
	started    bool
	canvas
}

// canvas is the part of a terminal below the command line, on which each picture replaces the one before.
type canvas struct {
	// drawn is the number of lines in the last picture.
	drawn int
	// size returns the columns and lines of the terminal, or 0 if they are unknown.
	size func() (width, height int)
}

// newCanvas returns a canvas for an output. If that is no terminal, its size is unknown.
func newCanvas(out io.Writer) canvas {
	f, ok := out.(*os.File)
	if !ok {
		return canvas{size: func() (int, int) { return 0, 0 }}
	}
	return canvas{size: func() (int, int) {
		w, h, err := term.GetSize(int(f.Fd())) //nolint:gosec // a file descriptor is a small number
		if err != nil {
			return 0, 0
		}
		return w, h
	}}
}

type happening struct {
	at   time.Time
	key  types.NamespacedName
	text string
	// color is that of the text while it is new.
	color color
}

func newScreen(o *listOptions) *screen {
	return &screen{listOptions: o, tokens: map[types.NamespacedName]v1alpha1.WeChatAppToken{}, canvas: newCanvas(o.app.Out)}
}

// run draws the screen until updates is closed.
func (s *screen) run(updates <-chan news) error {
	fmt.Fprint(s.app.Out, hideCursor)
	defer fmt.Fprint(s.app.Out, showCursor)
	tick := time.NewTicker(redraw)
	defer tick.Stop()
	for {
		select {
		case n, ok := <-updates:
			if !ok {
				return nil
			}
			s.take(n, s.app.now())
		case <-tick.C:
		}
		s.draw(s.app.Out, s.picture(s.app.now()))
	}
}

// take updates the screen's resources and happenings from the news.
func (s *screen) take(n news, now time.Time) {
	if s.trouble = n.err; n.err != nil {
		return
	}
	if n.all != nil {
		there := map[types.NamespacedName]bool{}
		for i := range n.all {
			there[client.ObjectKeyFromObject(&n.all[i])] = true
			s.put(&n.all[i], now)
		}
		for key := range s.tokens {
			if !there[key] {
				s.remove(key, now)
			}
		}
		s.started = true
	}
	if n.changed != nil {
		s.put(n.changed, now)
	}
	if n.gone != nil {
		s.remove(client.ObjectKeyFromObject(n.gone), now)
	}
}

func (s *screen) put(t *v1alpha1.WeChatAppToken, now time.Time) {
	key := client.ObjectKeyFromObject(t)
	before, known := s.tokens[key]
	s.tokens[key] = *t
	switch {
	case known:
		for _, h := range changes(lookAt(&before, now), lookAt(t, now)) {
			h.at, h.key = now, key
			s.happenings = append(s.happenings, h)
		}
	case s.started:
		s.happenings = append(s.happenings, happening{at: now, key: key, text: "created"})
	}
}

func (s *screen) remove(key types.NamespacedName, now time.Time) {
	delete(s.tokens, key)
	s.happenings = append(s.happenings, happening{at: now, key: key, text: "deleted", color: yellow})
}

// changes returns the changes between two states of a resource that are worth a line.
func changes(before, after look) []happening {
	var out []happening
	was, is := before.Status.Token, after.Status.Token
	switch {
	case was == nil && is != nil:
		out = append(out, happening{text: "token issued, valid for " + countdown(is.ExpirationTime.Sub(after.now)), color: green})
	case was != nil && is != nil && was.Fingerprint != is.Fingerprint:
		text := "token replaced: the one before had expired"
		if left := was.ExpirationTime.Sub(after.now); left > 0 {
			text = fmt.Sprintf("token replaced, %s before the end of the one before", countdown(left))
		}
		out = append(out, happening{text: text, color: green})
	}
	out = append(out, ticketChanges(before, after)...)
	if s := after.state(); s != before.state() || s != stateReady && after.reason() != before.reason() {
		h := happening{text: fmt.Sprintf("%s, was %s", s, before.state()), color: s.color()}
		if s != stateReady {
			h.text += ": " + clean(after.message())
		}
		if s == stateRefreshFailing {
			h.text = fmt.Sprintf("%s, was %s: %s: %s", s, before.state(), after.failing.Reason, clean(after.failing.Message))
		}
		out = append(out, h)
	}
	return out
}

// picture returns the lines to show at the time now.
func (s *screen) picture(now time.Time) []string {
	if !s.started {
		return nil
	}
	width, height := s.size()
	items := make([]v1alpha1.WeChatAppToken, 0, len(s.tokens))
	for _, t := range s.tokens {
		items = append(items, t)
	}
	sortTokens(items)
	below := s.below(now)
	lines := s.table(items, now, s.noHeaders).lines(s.app.paint)
	if len(items) == 0 {
		lines = []string{"No WeChatAppTokens yet."}
	}
	// The last line of the terminal is left for the cursor.
	if room := height - 1 - len(below); height > 0 && len(lines) > max(room, 2) {
		hidden := len(lines) - max(room, 2) + 1
		lines = append(lines[:len(lines)-hidden], s.app.paint.in(dim, fmt.Sprintf("… and %d more: use a larger window, or -l", hidden)))
	}
	lines = append(lines, below...)
	for i := range lines {
		lines[i] = fit(lines[i], width)
	}
	return lines
}

// below returns the lines below the table: the latest happenings, and the connection's error if it has one.
func (s *screen) below(now time.Time) []string {
	s.happenings = s.happenings[max(0, len(s.happenings)-keptHappenings):]
	t := &table{}
	for _, h := range s.happenings {
		name := h.key.Name
		if s.allNamespaces {
			name = h.key.String()
		}
		c, text := dim, dim
		if now.Sub(h.at) < highlight {
			c, text = plain, h.color
		}
		t.add(cell{h.at.UTC().Format("15:04:05 UTC"), c}, cell{name, c}, cell{h.text, text})
	}
	var out []string
	if len(s.happenings) > 0 {
		out = append(append(out, ""), t.lines(s.app.paint)...)
	}
	if s.trouble != nil {
		what, _, _ := strings.Cut(s.trouble.Error(), "\n")
		out = append(out, "", s.app.paint.in(red, "Connection lost, trying again: "+clean(what)))
	}
	return out
}

// draw replaces the last picture by the lines.
func (c *canvas) draw(w io.Writer, lines []string) {
	const clearLine, clearBelow = "\x1b[K", "\x1b[J"
	var b strings.Builder
	if c.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", c.drawn)
	}
	b.WriteString("\r")
	for line := range slices.Values(lines) {
		b.WriteString(line + clearLine + "\n")
	}
	b.WriteString(clearBelow)
	c.drawn = len(lines)
	fmt.Fprint(w, b.String())
}
