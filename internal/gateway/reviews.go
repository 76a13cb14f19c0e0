// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"
	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/cache"

	"github.com/wechat-token-operator/wechat-token-operator/internal/access"
)

const (
	// acceptedFor is how long a review is good, and refusedFor how long a refusal is remembered.
	acceptedFor = time.Minute
	refusedFor  = 10 * time.Second
	// acceptedWithout is how long a review is good while there cannot be another, because the API server is away or too many wait for one,
	// and askAgainAfter how long a call does not ask after that was found out.
	acceptedWithout = 10 * time.Minute
	askAgainAfter   = 5 * time.Second
	// startsWithin is how long after an outage the API server may refuse the gateway, because it has not read its own roles yet.
	startsWithin = 30 * time.Second

	// reviewsPerSecond and reviewsBurst limit the reviews of new tokens, and those of known ones, and waitForTurn is how long a new one waits.
	reviewsPerSecond = 20
	reviewsBurst     = 40
	waitForTurn      = 3 * time.Second
	// reviewWithin bounds a request to the API server.
	reviewWithin = 5 * time.Second

	// failedPerSecond and failedBurst limit the reviews of a peer that end with a refusal.
	failedPerSecond = 5
	failedBurst     = 10

	// mostAccepted and mostRefused bound what is remembered. Refusals are kept apart, so that bad tokens push out no good one.
	mostAccepted = 8192
	mostRefused  = 2048
)

// TokenReviewer sends TokenReviews to the API server. A client of client-go is one.
type TokenReviewer interface {
	Create(ctx context.Context, review *authenticationv1.TokenReview, o metav1.CreateOptions) (*authenticationv1.TokenReview, error)
}

// ReviewsOptions are what Reviews works with. Tokens and Audience are required.
type ReviewsOptions struct {
	Tokens TokenReviewer
	// Audience is the one that tokens must be for.
	Audience string
	// Now is the clock, by default time.Now.
	Now func() time.Time
	// Log gets the failures of reviews, at most one a second.
	Log logr.Logger
}

// Reviews tells whose a token is by TokenReview, and remembers the answers. It implements Reviewer.
type Reviews struct {
	ReviewsOptions

	accepted, refused *cache.LRUExpireCache
	// turns limits the reviews of new tokens, and renewals those of known ones, which no flood of bad tokens may hold up.
	turns, renewals *rate.Limiter
	failed          *peerBudgets
	flights         singleflight.Group
	failures        rate.Sometimes
	// outage is when the API server last could not be asked, in nanoseconds since 1970; 0 for never.
	outage atomic.Int64
}

// NewReviews returns Reviews.
func NewReviews(o ReviewsOptions) *Reviews {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Reviews{
		ReviewsOptions: o,
		accepted:       cache.NewLRUExpireCacheWithClock(mostAccepted, clock(o.Now)),
		refused:        cache.NewLRUExpireCacheWithClock(mostRefused, clock(o.Now)),
		turns:          rate.NewLimiter(reviewsPerSecond, reviewsBurst),
		renewals:       rate.NewLimiter(reviewsPerSecond, reviewsBurst),
		failed:         newPeerBudgets(failedPerSecond, failedBurst),
		failures:       rate.Sometimes{First: 1, Interval: time.Second},
	}
}

// clock makes a cache use a function as its clock.
type clock func() time.Time

// Now implements the clock of a cache.
func (c clock) Now() time.Time { return c() }

// acceptance is a token that the API server accepted.
type acceptance struct {
	account types.NamespacedName
	// freshUntil is when it is asked again, and goodUntil until when the answer counts if there is no other.
	freshUntil, goodUntil time.Time
}

// tokenKey is what is remembered of a token.
type tokenKey [sha256.Size]byte

func tokenKeyOf(bearer string) tokenKey { return sha256.Sum256([]byte(bearer)) }

// Review implements Reviewer.
func (r *Reviews) Review(
	ctx context.Context, bearer string, peer netip.Addr, named func(types.NamespacedName) bool,
) (types.NamespacedName, error) {
	now := r.Now()
	none := types.NamespacedName{}
	if len(bearer) > maxBearer {
		return none, ErrBearerRefused
	}
	key := tokenKeyOf(bearer)
	if _, refused := r.refused.Get(key); refused {
		return none, ErrBearerRefused
	}
	known, found := r.known(key)
	if found && now.Before(known.freshUntil) && named(known.account) {
		return known.account, nil
	}
	claims, ok := readClaims(bearer, r.Audience)
	if !ok || !now.Before(claims.expires) || !named(claims.account) {
		return none, ErrBearerRefused
	}
	err := r.merged(ctx, key, bearer, claims, peer, found)
	if found && r.Now().Before(known.goodUntil) && (errors.Is(err, ErrNoReview) || errors.Is(err, ErrTooManyReviews)) {
		r.remember(key, acceptance{known.account, r.Now().Add(askAgainAfter), known.goodUntil})
		err = nil
	}
	if err != nil {
		return none, err
	}
	return claims.account, nil
}

// known returns what is remembered of a token that was accepted.
func (r *Reviews) known(key tokenKey) (acceptance, bool) {
	v, found := r.accepted.Get(key)
	if !found {
		return acceptance{}, false
	}
	a, ok := v.(acceptance)
	return a, ok
}

// remember keeps an acceptance until it is no longer good.
func (r *Reviews) remember(key tokenKey, a acceptance) {
	if a.freshUntil.After(a.goodUntil) {
		a.freshUntil = a.goodUntil
	}
	r.accepted.Add(key, a, a.goodUntil.Sub(r.Now()))
}

// merged reviews a token once for all calls that wait for it. The review goes on if one of them ends.
func (r *Reviews) merged(
	ctx context.Context, key tokenKey, bearer string, claims accountClaims, peer netip.Addr, known bool,
) error {
	done := r.flights.DoChan(string(key[:]), func() (_ any, err error) {
		defer func() {
			if recover() != nil { // singleflight would end the process, and show the value
				err = ErrNoReview
			}
		}()
		return nil, r.inTurn(context.WithoutCancel(ctx), key, bearer, claims, peer, known)
	})
	select {
	case <-ctx.Done():
		return ctx.Err()
	case result := <-done:
		return result.Err
	}
}

// inTurn reviews a token within the limits for tokens that are known or new. A known one is good meanwhile, so its calls do not wait. The
// review of a new one counts for the peer that sent it first, and not if the token is good.
func (r *Reviews) inTurn(
	ctx context.Context, key tokenKey, bearer string, claims accountClaims, peer netip.Addr, known bool,
) (err error) {
	if known {
		if !r.renewals.Allow() {
			return ErrTooManyReviews
		}
		return r.review(ctx, key, bearer, claims)
	}
	if !r.failed.take(peer, r.Now()) {
		return ErrTooManyReviews
	}
	defer func() {
		if !errors.Is(err, ErrBearerRefused) {
			r.failed.giveBack(peer, r.Now())
		}
	}()
	turn, cancel := context.WithTimeout(ctx, waitForTurn)
	defer cancel()
	if r.turns.Wait(turn) != nil {
		return ErrTooManyReviews
	}
	return r.review(ctx, key, bearer, claims)
}

// review asks the API server about a token, and remembers what it says. Errors are not remembered.
func (r *Reviews) review(ctx context.Context, key tokenKey, bearer string, claims accountClaims) error {
	ctx, cancel := context.WithTimeout(ctx, reviewWithin)
	defer cancel()
	answer, err := r.Tokens.Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: bearer, Audiences: []string{r.Audience}},
	}, metav1.CreateOptions{})
	if err != nil {
		r.failures.Do(func() { r.Log.Error(access.Describe(err, bearer), "could not tell whose a Bearer token is") })
		if r.away(err) {
			return ErrNoReview
		}
		return errReviewRefused
	}
	account, ok := accountOf(answer.Status.User.Username)
	// An API server that does not know audiences names none, and would accept a token for anybody.
	if !answer.Status.Authenticated || !ok || account != claims.account || !slices.Contains(answer.Status.Audiences, r.Audience) {
		r.accepted.Remove(key)
		r.refused.Add(key, struct{}{}, refusedFor)
		return ErrBearerRefused
	}
	now := r.Now()
	good := now.Add(acceptedWithout)
	if claims.expires.Before(good) {
		good = claims.expires
	}
	r.remember(key, acceptance{account, now.Add(acceptedFor), good})
	return nil
}

// errReviewRefused means that the API server refuses to review tokens for this gateway. It says nothing about the token, and is no outage.
var errReviewRefused = errors.New("the API server refuses the review")

// away reports whether a review failed because the API server is away, or has just started and refuses everybody.
func (r *Reviews) away(err error) bool {
	now := r.Now()
	if isOutage(err) {
		r.outage.Store(now.UnixNano())
		return true
	}
	last := r.outage.Load()
	return last != 0 && now.Before(time.Unix(0, last).Add(startsWithin)) && (apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err))
}

// isOutage reports whether a review failed because the API server could not be reached or did not work.
func isOutage(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return true // of the transport
	}
	code := status.Status().Code
	return code == http.StatusTooManyRequests || code >= http.StatusInternalServerError
}
