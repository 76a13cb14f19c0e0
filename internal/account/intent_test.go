// SPDX-License-Identifier: Apache-2.0

package account

import (
	"testing"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/internal/kube"
)

// mark returns one that was written so much after now.
func mark(id string, at time.Duration) Mark { return Mark{StartedAt: after(at), ID: id} }

// The life of marks on one Secret, as this process sees it.
func TestIntent(t *testing.T) {
	none, own, next, theirs := Mark{}, mark("own", 0), mark("next", time.Minute), mark("theirs", time.Second)
	type step = func(Intent) Intent
	marked := func(previous, next Mark) step { return func(i Intent) Intent { return i.Marked(previous, next) } }
	notMinted := func(m Mark) step { return func(i Intent) Intent { return i.NotMinted(m) } }
	dropped := func(again bool) step { return func(i Intent) Intent { return i.Settled(again) } }
	landed := dropped(false)
	for name, test := range map[string]struct {
		steps      []step
		mark       Mark // on the Secret
		unanswered bool
		own        bool
		mintAgain  bool
	}{
		"nothing":                              {nil, none, false, false, false},
		"another process's mark":               {nil, theirs, true, false, false},
		"marked":                               {[]step{marked(none, own)}, own, true, true, false},
		"marked, then another process":         {[]step{marked(none, own)}, theirs, true, false, false},
		"marked, and the mint landed":          {[]step{marked(none, own), landed}, none, false, false, false},
		"marked, and WeChat refused":           {[]step{marked(none, own), notMinted(own)}, own, false, true, false},
		"refused, and marked again":            {[]step{marked(none, own), notMinted(own), marked(own, next)}, next, true, true, false},
		"refused twice":                        {[]step{marked(none, own), notMinted(own), marked(own, next), notMinted(next)}, next, false, true, false},
		"refused, then another process":        {[]step{marked(none, own), notMinted(own)}, theirs, true, false, false},
		"marked over a mint that was lost":     {[]step{marked(theirs, own)}, own, true, true, true},
		"lost, then refused":                   {[]step{marked(theirs, own), notMinted(own)}, own, false, true, true},
		"lost, then refused, then marked":      {[]step{marked(theirs, own), notMinted(own), marked(own, next)}, next, true, true, true},
		"lost, then landed":                    {[]step{marked(theirs, own), landed}, none, false, false, false},
		"own mint lost, marked again":          {[]step{marked(none, own), marked(own, next)}, next, true, true, true},
		"a token was dropped":                  {[]step{marked(none, own), dropped(false)}, none, false, false, false},
		"an unmarked token was dropped":        {[]step{dropped(true)}, none, false, false, true},
		"dropped, then a token landed":         {[]step{dropped(true), landed}, none, false, false, false},
		"dropped, then marked":                 {[]step{dropped(true), marked(none, own)}, own, true, true, true},
		"dropped, and the next one stands":     {[]step{marked(theirs, own), dropped(false)}, none, false, false, false},
		"a mark answered by a former process":  {[]step{notMinted(theirs)}, theirs, false, false, false},
		"marked over one that was answered":    {[]step{notMinted(theirs), marked(theirs, own)}, own, true, true, false},
		"the same time under another identity": {[]step{marked(none, own), notMinted(own)}, Mark{StartedAt: own.StartedAt, ID: "x"}, true, false, false},
		"a mark without an identity":           {[]step{marked(none, Mark{StartedAt: now})}, Mark{StartedAt: now}, true, false, false},
	} {
		var i Intent
		for _, s := range test.steps {
			i = s(i)
		}
		got := i.Unanswered(test.mark)
		if got.IsZero() == test.unanswered || test.unanswered && got != test.mark {
			t.Errorf("%s: unanswered is %+v", name, got)
		}
		if i.Own(test.mark) != test.own || i.MintAgain() != test.mintAgain {
			t.Errorf("%s: own %t, mint again %t", name, i.Own(test.mark), i.MintAgain())
		}
	}
}

// An intent is a value: a step that fails half-way leaves the one before as it is.
func TestIntentIsAValue(t *testing.T) {
	before := Intent{}.Marked(Mark{}, mark("own", 0))
	kept := before
	before.Marked(mark("theirs", 0), mark("next", 0))
	before.NotMinted(mark("own", 0))
	before.Settled(true)
	before.Seen(mark("theirs", 0), now)
	if before != kept {
		t.Errorf("%+v became %+v", kept, before)
	}
}

// Another process's mark is waited for, in each rotation anew; those that follow each other, as forged ones do, only once.
func TestMarksOfAnotherProcess(t *testing.T) {
	var i Intent
	for _, test := range []struct {
		at, want time.Duration // since the start, and how long a mark of that moment is waited for
	}{
		{0, MintTakes},
		{10 * time.Second, MintTakes - 10*time.Second},
		{time.Minute, 0},
		{waitAgainAfter, 0},
		{waitAgainAfter + time.Second, MintTakes},
		{waitAgainAfter + time.Minute, 0},
		{-time.Hour, MintTakes}, // the clock that noted the others ran ahead
	} {
		at := after(test.at)
		m := Mark{StartedAt: at, ID: test.at.String()}
		i = i.Seen(m, at)
		if got := max(0, i.NotBefore(m).Sub(at)); got != test.want {
			t.Errorf("a mark %s after the first is waited for %s, want %s", test.at, got, test.want)
		}
	}
}

func TestNotBefore(t *testing.T) {
	const minute = time.Minute
	own := Intent{}.Marked(Mark{}, mark("own", 0))
	for name, test := range map[string]struct {
		i    Intent
		mark Mark
		want time.Duration // from now, 0 for no wait
	}{
		"no mark":                     {Intent{}, Mark{}, 0},
		"an own mark":                 {own, mark("own", 0), 0},
		"one that was answered":       {Intent{}.NotMinted(mark("theirs", 0)), mark("theirs", 0), 0},
		"another process's":           {Intent{}, mark("theirs", 0), MintTakes},
		"another process's, after us": {own, mark("theirs", 0), MintTakes},
		"written some seconds ago":    {Intent{}, mark("theirs", -5*time.Second), MintTakes - 5*time.Second},
		"written long ago":            {Intent{}, mark("theirs", -minute), 0},
		"from the future":             {Intent{}, mark("theirs", time.Hour), MintTakes},
		"answered, and seen all the same": {
			Intent{}.Seen(mark("theirs", 0), now).NotMinted(mark("theirs", 0)), mark("theirs", 0), 0,
		},
	} {
		i := test.i.Seen(test.mark, now)
		if got := max(0, i.NotBefore(test.mark).Sub(now)); got != test.want {
			t.Errorf("%s: waited for %s, want %s", name, got, test.want)
		}
	}
	// An own mark in between lets the next one of another process be waited for anew.
	i := Intent{}.Seen(mark("theirs", 0), now).Marked(mark("theirs", 0), mark("own", minute))
	again := mark("again", minute)
	if got := i.Seen(again, after(minute)).NotBefore(again).Sub(after(minute)); got != MintTakes {
		t.Errorf("after an own mark another one is waited for %s", got)
	}
}

// A process that was stopped, or whose mark took long to write, must not mint when another one thinks that its mint is over.
func TestStartBy(t *testing.T) {
	for name, test := range map[string]struct {
		mark string
		at   time.Duration // since the mark
		want time.Duration // from then
	}{
		"no mark":                 {"", time.Minute, mintWithin},
		"at once":                 {"own", 0, mintWithin},
		"the mark took 3 s":       {"own", 3 * time.Second, mintWithin},
		"the mark took 8 s":       {"own", 8 * time.Second, mintWithin},
		"the mark took 15 s":      {"own", kube.AnswerWithin, mintWithin},
		"the mark took 16 s":      {"own", kube.AnswerWithin + time.Second, mintWithin - time.Second},
		"stopped after the mark":  {"own", time.Minute, startAfterMark - time.Minute},
		"another process's mark":  {"other", time.Minute, mintWithin},
		"a clock that was ahead":  {"own", -time.Hour, mintWithin},
		"its end, for the others": {"own", MintTakes, startAfterMark - MintTakes},
	} {
		i := Intent{}.Marked(Mark{}, mark("own", 0))
		at := after(test.at)
		if got := i.StartBy(mark(test.mark, 0), at).Sub(at); got != test.want {
			t.Errorf("%s: to be started within %s, want %s", name, got, test.want)
		}
	}
}
