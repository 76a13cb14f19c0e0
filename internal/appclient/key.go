// SPDX-License-Identifier: Apache-2.0

package appclient

import (
	"crypto/rand"
	"encoding/hex"
	"regexp"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// tokensLive is how long the gateway accepts a token that was bought with a key. A key stays in the Secret for so long after it has
// stopped to buy tokens, because those that it bought are verified with it.
const tokensLive = 4 * time.Hour

// syncedLater is when a plan that depends on WeChat's time is made again while that is not known.
const syncedLater = 30 * time.Second

// wellFormedKey matches what a key looks like. Anything else in the Secret is no key.
var wellFormedKey = regexp.MustCompile(`^[0-9a-f]{32}$`)

// newKey returns a key that nobody can guess.
func newKey() token.Value {
	var random [16]byte
	_, _ = rand.Read(random[:]) // it never fails
	return token.NewValue(hex.EncodeToString(random[:]))
}

// parseKey returns the key that a value of the Secret is; the zero Value if it is none.
func parseKey(value []byte) token.Value {
	if !wellFormedKey.Match(value) {
		return token.Value{}
	}
	return token.NewValue(string(value))
}

// change is what has to become of the key.
type change string

const (
	// keep leaves the key as it is.
	keep change = ""
	// issue makes the first key.
	issue change = "issue"
	// rotate makes a new key beside the one before.
	rotate change = "rotate"
	// repair makes a new key, because somebody changed or deleted the Secret.
	repair change = "repair"
	// revoke makes a new key and ends all others at once.
	revoke change = "revoke"
)

// keyInputs is what the fate of a key depends on.
type keyInputs struct {
	now time.Time
	// synced reports that now is WeChat's time. Until then it may be wrong by any time, so nothing that ends a key happens by itself.
	synced bool
	spec   v1alpha1.ClientKeySpec
	// known is the key by what only the operator can write; nil for none. The Secret is no proof of anything.
	known *v1alpha1.ClientKeyStatus
	// current and previous are the fingerprints of the keys that the Secret holds; empty for none.
	current, previous string
	// rotate and revoke are requests that were not handled yet.
	rotate, revoke bool
}

// keyPlan is what has to become of a key and the one before it.
type keyPlan struct {
	change change
	// createTime is that of the key that the Secret is to hold.
	createTime metav1.Time
	// previous is the fingerprint of the key that stays in the Secret beside it, and until is when that one stops to buy tokens; empty
	// for none.
	previous string
	until    metav1.Time
	// lost reports that the key before should be in the Secret and is not.
	lost bool
	// at is when time alone changes the plan; zero for never.
	at time.Time
	// rotationWaits reports that a rotation was requested which has to wait for the end of the key before.
	rotationWaits bool
}

// planKey decides about a key.
//
// A crash between the write of the Secret and that of the status leaves a Secret with a key that no status names. It is replaced like one
// that somebody else wrote: no process can tell the two apart, and the gateway has not accepted it. The key that the status names is still
// beside it, and becomes the key before.
func planKey(in keyInputs) keyPlan {
	known := settled(in)
	p := keyPlan{change: keep, createTime: known.CreateTime}
	if ends := endOf(known); in.now.Before(ends) || !in.synced && !ends.IsZero() {
		if in.previous == known.PreviousFingerprint {
			p.previous, p.until = known.PreviousFingerprint, *known.PreviousUntilTime
		} else {
			p.lost = in.now.Before(ends) // otherwise a process before this one took it out at its end
		}
	}
	intact := known.Fingerprint != "" && in.current == known.Fingerprint
	free := p.previous == ""
	due := rotationDue(in, known)
	switch {
	case in.revoke:
		return keyPlan{change: revoke, createTime: seconds(in.now)}.scheduled(in)
	case known.Fingerprint == "":
		p = keyPlan{change: issue}
	case !intact && in.previous == known.Fingerprint:
		p.change = repair
		if due {
			p.change = rotate
		}
		p.lost, p.previous, p.until = false, known.Fingerprint, seconds(in.now.Add(in.spec.Overlap.Duration))
	case !intact:
		p.change = repair
	case due && free:
		p.change, p.previous, p.until = rotate, known.Fingerprint, seconds(in.now.Add(in.spec.Overlap.Duration))
	default:
		p.rotationWaits = in.rotate
		return p.scheduled(in)
	}
	p.createTime = seconds(in.now)
	return p.scheduled(in)
}

// settled returns what is known of the key, without times that lie further ahead than any that is written now: the clock that they were
// noted by ran ahead, or the spec was changed since. A clock that is not synced may be the one that is wrong.
func settled(in keyInputs) v1alpha1.ClientKeyStatus {
	if in.known == nil {
		return v1alpha1.ClientKeyStatus{}
	}
	known := *in.known.DeepCopy()
	if known.PreviousUntilTime == nil {
		known.PreviousFingerprint = ""
	}
	if !in.synced {
		return known
	}
	if refresh.IsInFuture(known.CreateTime.Time, in.now) {
		known.CreateTime = seconds(in.now)
	}
	latest := in.now.Add(in.spec.Overlap.Duration)
	if u := known.PreviousUntilTime; u != nil && u.After(latest) {
		*u = seconds(latest)
	}
	return known
}

// rotationDue reports whether a rotation was requested or the interval is over.
func rotationDue(in keyInputs, known v1alpha1.ClientKeyStatus) bool {
	interval := in.spec.RotationInterval
	return in.rotate || interval != nil && in.synced && !in.now.Before(known.CreateTime.Add(interval.Duration))
}

// endOf returns when the key before has to leave the Secret; zero without one.
func endOf(known v1alpha1.ClientKeyStatus) time.Time {
	if known.PreviousFingerprint == "" || known.PreviousUntilTime == nil {
		return time.Time{}
	}
	return known.PreviousUntilTime.Add(tokensLive)
}

// scheduled returns the plan with the moment at which time alone changes it.
func (p keyPlan) scheduled(in keyInputs) keyPlan {
	if !in.synced && (p.previous != "" || in.spec.RotationInterval != nil) {
		p.at = in.now.Add(syncedLater)
		return p
	}
	if p.previous != "" {
		p.at = p.until.Add(tokensLive)
		return p // a rotation waits for that
	}
	if interval := in.spec.RotationInterval; interval != nil {
		p.at = p.createTime.Add(interval.Duration)
	}
	return p
}

// next returns what the status has to say of the key once the Secret is as planned. key is that of the Secret.
func (p keyPlan) next(key string) *v1alpha1.ClientKeyStatus {
	s := &v1alpha1.ClientKeyStatus{Fingerprint: key, CreateTime: p.createTime}
	if p.previous != "" {
		until := p.until
		s.PreviousFingerprint, s.PreviousUntilTime = p.previous, &until
	}
	return s
}

// seconds returns a time as a status keeps it.
func seconds(t time.Time) metav1.Time { return metav1.NewTime(t.UTC().Truncate(time.Second)) }
