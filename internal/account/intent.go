// SPDX-License-Identifier: Apache-2.0

package account

import (
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
)

const (
	// mintWithin is the time from the write of the mark to the start of its mint.
	mintWithin = 2 * time.Second
	// markWithin is the longest time that the write of a mark may take: kube.AnswerWithin, which this package must not import.
	markWithin = 15 * time.Second
	// startAfterMark is the longest time from the moment that a mark names to the start of its mint. It includes the write of the
	// mark, and a process that was stopped meanwhile finds that it is too late.
	startAfterMark = mintWithin + markWithin
	// MintTakes is the longest time from the moment that a mark names to the end of its mint: its start, and the call's deadline.
	MintTakes = startAfterMark + 10*time.Second
	// waitAgainAfter is how long after a mark of another process the next one is waited for. It is long enough that forged marks
	// do not put a mint off for long, and shorter than the shortest rotation.
	waitAgainAfter = 3 * time.Minute
)

// Mark is what a target Secret says about a Legacy mint that was begun. The zero value says that there was none.
type Mark struct {
	StartedAt time.Time
	ID        string
}

// IsZero reports whether there is no mark.
func (m Mark) IsZero() bool { return m.StartedAt.IsZero() }

// Intent is what this process knows about the marks on one target Secret. It is a value: its methods return the next state.
// The zero value knows nothing, and losing it costs at most one mint.
type Intent struct {
	// ownID is the ID of the last mark that this process wrote.
	ownID string
	// void is a mark whose mint did not happen, because WeChat refused it or it was not sent.
	void Mark
	// foreignSince is when the mark of another process was first seen.
	foreignSince time.Time
	// mintAgain is set when a mint was lost, or may have happened in two processes at the same moment, so that nobody knows
	// which token lives.
	mintAgain bool
}

// Marked returns the state after this process has written next in place of the mark that was there. If that one was never
// answered, a mint was lost, and an errcode for this one is no answer to it.
func (i Intent) Marked(previous, next Mark) Intent {
	i.mintAgain = i.mintAgain || !i.Unanswered(previous).IsZero()
	i.ownID, i.foreignSince = next.ID, time.Time{}
	return i
}

// NotMinted returns the state after the mint of a mark is known not to have happened.
func (i Intent) NotMinted(mark Mark) Intent {
	i.void = mark
	return i
}

// Settled returns the state after a minted token was written or dropped. again says that the next mint is needed whatever the Secret holds.
func (i Intent) Settled(again bool) Intent {
	i.mintAgain = again
	return i
}

// Seen returns the state after the mark was seen on the Secret.
func (i Intent) Seen(mark Mark, now time.Time) Intent {
	if i.Unanswered(mark).IsZero() || i.Own(mark) {
		return i
	}
	if now.Sub(i.foreignSince) > waitAgainAfter || refresh.IsInFuture(i.foreignSince, now) {
		i.foreignSince = now
	}
	return i
}

// Unanswered returns the mark, or the zero Mark if its mint is known not to have happened.
func (i Intent) Unanswered(mark Mark) Mark {
	if mark.ID == i.void.ID && mark.StartedAt.Equal(i.void.StartedAt) {
		return Mark{}
	}
	return mark
}

// Own reports whether the mark is the last one that this process wrote.
func (i Intent) Own(mark Mark) bool { return mark.ID != "" && mark.ID == i.ownID }

// MintAgain reports whether a mint has to follow whatever the Secret holds.
func (i Intent) MintAgain() bool { return i.mintAgain }

// NotBefore returns when an unanswered mark may cause a mint, as far as the mark itself is concerned; zero for now.
//
// The mark may belong to a leader that does not know yet that it was deposed. A second mint before the first one is over would
// end the token that readers still hold. A mark may also be forged, so marks that follow each other are waited for only once.
func (i Intent) NotBefore(mark Mark) time.Time {
	if mark = i.Unanswered(mark); mark.IsZero() || i.Own(mark) {
		return time.Time{}
	}
	// A mark from the future is waited for like one from now: either clock may be wrong by seconds.
	return refresh.Earlier(mark.StartedAt, i.foreignSince).Add(MintTakes)
}

// StartBy returns the time by which a mint under the mark must have left this machine. Other processes count from the mark.
func (i Intent) StartBy(mark Mark, now time.Time) time.Time {
	at := now.Add(mintWithin)
	if i.Own(mark) {
		at = refresh.Earlier(at, mark.StartedAt.Add(startAfterMark))
	}
	return at
}
