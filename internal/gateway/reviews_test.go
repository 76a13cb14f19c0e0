// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/wechat-token-operator/wechat-token-operator/internal/access"
)

const audience = "wechat-gateway"

var (
	peer      = netip.MustParseAddr("10.0.0.1")
	otherPeer = netip.MustParseAddr("10.0.0.2")
)

// jwt returns a token with these claims and a signature that nobody checks.
func jwt(claims map[string]any) string {
	payload, _ := json.Marshal(claims)
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"RS256"}`)) + "." + encode(payload) + "." + encode([]byte("signature"))
}

// accountToken returns the token of shop/api for a while from now on. The id makes it differ from others.
func accountToken(id string, life time.Duration) string {
	return jwt(map[string]any{
		"aud": []string{audience}, "sub": "system:serviceaccount:shop:api", "exp": time.Now().Add(life).Unix(), "jti": id,
	})
}

// fakeTokenReviews answers reviews. It accepts every token unless answer says otherwise.
type fakeTokenReviews struct {
	mu     sync.Mutex
	asked  int
	answer func(ctx context.Context, bearer string, status *authenticationv1.TokenReviewStatus) error
}

func (f *fakeTokenReviews) Create(
	ctx context.Context, review *authenticationv1.TokenReview, _ metav1.CreateOptions,
) (*authenticationv1.TokenReview, error) {
	f.mu.Lock()
	f.asked++
	f.mu.Unlock()
	out := review.DeepCopy()
	out.Status = authenticationv1.TokenReviewStatus{
		Authenticated: true, Audiences: review.Spec.Audiences,
		User: authenticationv1.UserInfo{Username: "system:serviceaccount:shop:api"},
	}
	if f.answer != nil {
		if err := f.answer(ctx, review.Spec.Token, &out.Status); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (f *fakeTokenReviews) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

func named(name types.NamespacedName) bool { return name == account("shop", "api") }

func refuseAll(_ context.Context, _ string, s *authenticationv1.TokenReviewStatus) error {
	*s = authenticationv1.TokenReviewStatus{Error: "invalid bearer token"}
	return nil
}

var errRefusedDial = &url.Error{Op: "Post", URL: "https://api", Err: errors.New("connection refused")}

func away(context.Context, string, *authenticationv1.TokenReviewStatus) error { return errRefusedDial }

func newReviewsUnderTest(f *fakeTokenReviews) *Reviews {
	return NewReviews(ReviewsOptions{Tokens: f, Audience: audience})
}

// Tokens that cannot be good cost no review.
func TestTokensNotWorthAReview(t *testing.T) {
	exp := now.Add(time.Hour).Unix()
	sub := "system:serviceaccount:shop:api"
	for name, test := range map[string]struct {
		bearer string
		worth  bool
	}{
		"good":                 {jwt(map[string]any{"aud": []string{"x", audience}, "sub": sub, "exp": exp}), true},
		"one audience":         {jwt(map[string]any{"aud": audience, "sub": sub, "exp": exp}), true},
		"another audience":     {jwt(map[string]any{"aud": []string{"https://kubernetes.default.svc"}, "sub": sub, "exp": exp}), false},
		"no audience":          {jwt(map[string]any{"sub": sub, "exp": exp}), false},
		"an odd audience":      {jwt(map[string]any{"aud": 1, "sub": sub, "exp": exp}), false},
		"expired":              {jwt(map[string]any{"aud": audience, "sub": sub, "exp": now.Unix()}), false},
		"without an end":       {jwt(map[string]any{"aud": audience, "sub": sub}), false},
		"an end far away":      {jwt(map[string]any{"aud": audience, "sub": sub, "exp": 1e300}), false},
		"an odd end":           {jwt(map[string]any{"aud": audience, "sub": sub, "exp": "soon"}), false},
		"nobody":               {jwt(map[string]any{"aud": audience, "exp": exp}), false},
		"a person":             {jwt(map[string]any{"aud": audience, "sub": "admin", "exp": exp}), false},
		"a name of too many":   {jwt(map[string]any{"aud": audience, "sub": sub + ":x", "exp": exp}), false},
		"that no client has":   {jwt(map[string]any{"aud": audience, "sub": "system:serviceaccount:shop:other", "exp": exp}), false},
		"too long":             {jwt(map[string]any{"aud": audience, "sub": sub, "exp": exp, "x": strings.Repeat("x", maxBearer)}), false},
		"no JSON":              {"a.YQ.c", false},
		"no base64":            {"a.!.c", false},
		"two parts":            {"a.b", false},
		"four parts":           {"a.b.c.d", false},
		"deep":                 {"a." + base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat("[", 9000))) + ".c", false},
		"empty":                {"", false},
		"dots alone":           {strings.Repeat(".", 20_000), false},
		"a token of Tencent's": {realToken, false},
	} {
		f := &fakeTokenReviews{}
		r := newReviewsUnderTest(f)
		r.Now = func() time.Time { return now }
		_, err := r.Review(t.Context(), test.bearer, peer, named)
		if (err == nil) != test.worth || f.count() > 0 != test.worth || err != nil && !errors.Is(err, ErrBearerRefused) {
			t.Errorf("%s: %v after %d reviews", name, err, f.count())
		}
	}
}

func TestReviewAnswers(t *testing.T) {
	status := func(change func(*authenticationv1.TokenReviewStatus)) func(context.Context, string, *authenticationv1.TokenReviewStatus) error {
		return func(_ context.Context, _ string, s *authenticationv1.TokenReviewStatus) error { change(s); return nil }
	}
	fails := func(err error) func(context.Context, string, *authenticationv1.TokenReviewStatus) error {
		return func(context.Context, string, *authenticationv1.TokenReviewStatus) error { return err }
	}
	for name, test := range map[string]struct {
		answer func(context.Context, string, *authenticationv1.TokenReviewStatus) error
		want   error
	}{
		"yes":                     {nil, nil},
		"no":                      {refuseAll, ErrBearerRefused},
		"no audiences":            {status(func(s *authenticationv1.TokenReviewStatus) { s.Audiences = nil }), ErrBearerRefused},
		"another audience":        {status(func(s *authenticationv1.TokenReviewStatus) { s.Audiences = []string{"api"} }), ErrBearerRefused},
		"another account":         {status(func(s *authenticationv1.TokenReviewStatus) { s.User.Username = "system:serviceaccount:shop:x" }), ErrBearerRefused},
		"a person":                {status(func(s *authenticationv1.TokenReviewStatus) { s.User.Username = "admin" }), ErrBearerRefused},
		"yes, but not really":     {status(func(s *authenticationv1.TokenReviewStatus) { s.Authenticated = false }), ErrBearerRefused},
		"no connection":           {away, ErrNoReview},
		"an API server that ails": {fails(apierrors.NewInternalError(errors.New("etcd"))), ErrNoReview},
		"too many requests":       {fails(apierrors.NewTooManyRequestsError("later")), ErrNoReview},
		"no permission":           {fails(apierrors.NewForbidden(schema.GroupResource{Resource: "tokenreviews"}, "", nil)), errReviewRefused},
		"a panic":                 {func(context.Context, string, *authenticationv1.TokenReviewStatus) error { panic(realToken) }, ErrNoReview},
	} {
		synctest.Test(t, func(t *testing.T) {
			var log strings.Builder
			r := newReviewsUnderTest(&fakeTokenReviews{answer: test.answer})
			r.Log = textLogger(&log)
			bearer := accountToken("a", time.Hour)
			got, err := r.Review(t.Context(), bearer, peer, named)
			if !errors.Is(err, test.want) || err == nil && got != account("shop", "api") {
				t.Errorf("%s: %v, %v, want %v", name, got, err, test.want)
			}
			if strings.Contains(log.String(), bearer) || strings.Contains(log.String(), realToken) {
				t.Errorf("%s: logged %s", name, log.String())
			}
		})
	}
}

func TestReviewsAreRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeTokenReviews{}
		r := newReviewsUnderTest(f)
		bearer := accountToken("a", time.Hour)
		ask := func(reviews int, want error) {
			t.Helper()
			if _, err := r.Review(t.Context(), bearer, peer, named); !errors.Is(err, want) || f.count() != reviews {
				t.Errorf("%v after %d reviews, want %v after %d", err, f.count(), want, reviews)
			}
		}
		ask(1, nil)
		time.Sleep(acceptedFor - time.Nanosecond)
		ask(1, nil)
		if _, err := r.Review(t.Context(), bearer, peer, func(types.NamespacedName) bool { return false }); !errors.Is(err, ErrBearerRefused) {
			t.Errorf("when no client names it any more: %v", err)
		}
		time.Sleep(time.Nanosecond)
		ask(2, nil)
		// The ServiceAccount is deleted.
		f.answer = refuseAll
		ask(2, nil)
		time.Sleep(acceptedFor)
		ask(3, ErrBearerRefused)
		f.answer = nil
		ask(3, ErrBearerRefused)
		time.Sleep(refusedFor + time.Nanosecond)
		ask(4, nil)
	})
}

// While the API server is away, a known token is good until its own end, and for ten minutes at most.
func TestReviewsDuringAnOutage(t *testing.T) {
	for name, test := range map[string]struct {
		life, good time.Duration
	}{
		"ten minutes":       {time.Hour, acceptedWithout},
		"until its own end": {4 * time.Minute, 4 * time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := &fakeTokenReviews{}
			r := newReviewsUnderTest(f)
			bearer := accountToken("a", test.life)
			start := time.Now()
			if _, err := r.Review(t.Context(), bearer, peer, named); err != nil {
				t.Fatal(err)
			}
			f.answer = away
			for time.Since(start) < test.good {
				if _, err := r.Review(t.Context(), bearer, peer, named); err != nil {
					t.Fatalf("%s: after %s: %v", name, time.Since(start), err)
				}
				time.Sleep(time.Second)
			}
			if most := int((test.good-acceptedFor)/askAgainAfter) + 2; f.count() > most {
				t.Errorf("%s: the API server was asked %d times", name, f.count())
			}
			if _, err := r.Review(t.Context(), bearer, peer, named); err == nil {
				t.Errorf("%s: good after %s", name, time.Since(start))
			}
			if _, err := r.Review(t.Context(), accountToken("new", time.Hour), peer, named); !errors.Is(err, ErrNoReview) {
				t.Errorf("%s: a new token: %v", name, err)
			}
			f.answer = nil
			if _, err := r.Review(t.Context(), accountToken("new", time.Hour), peer, named); err != nil {
				t.Errorf("%s: afterwards: %v", name, err)
			}
		})
	}
}

// An API server that refuses the gateway its reviews is no outage.
func TestForbiddenReviewsAreNoOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeTokenReviews{}
		r := newReviewsUnderTest(f)
		bearer := accountToken("a", time.Hour)
		_, _ = r.Review(t.Context(), bearer, peer, named)
		f.answer = func(context.Context, string, *authenticationv1.TokenReviewStatus) error {
			return apierrors.NewForbidden(schema.GroupResource{Resource: "tokenreviews"}, "", nil)
		}
		time.Sleep(acceptedFor)
		if _, err := r.Review(t.Context(), bearer, peer, named); err == nil {
			t.Error("good")
		}
	})
}

// An API server that starts refuses everybody until it has read its roles, and is still away for the gateway. One that goes on to refuse is
// not.
func TestForbiddenReviewsAfterAnOutage(t *testing.T) {
	for name, refusal := range map[string]error{
		"forbidden":    apierrors.NewForbidden(schema.GroupResource{Resource: "tokenreviews"}, "", nil),
		"unauthorized": apierrors.NewUnauthorized("Unauthorized"),
	} {
		synctest.Test(t, func(t *testing.T) {
			f := &fakeTokenReviews{}
			r := newReviewsUnderTest(f)
			bearer := accountToken("a", time.Hour)
			review := func() error {
				_, err := r.Review(t.Context(), bearer, peer, named)
				return err
			}
			if err := review(); err != nil {
				t.Fatal(err)
			}
			f.answer = away
			time.Sleep(acceptedFor)
			if err := review(); err != nil {
				t.Fatalf("%s: while the API server is away: %v", name, err)
			}
			f.answer = func(context.Context, string, *authenticationv1.TokenReviewStatus) error { return refusal }
			for range startsWithin/askAgainAfter - 1 {
				time.Sleep(askAgainAfter)
				if err := review(); err != nil {
					t.Fatalf("%s: while the API server starts: %v", name, err)
				}
			}
			if _, err := r.Review(t.Context(), accountToken("new", time.Hour), peer, named); !errors.Is(err, ErrNoReview) {
				t.Errorf("%s: a new token while the API server starts: %v", name, err)
			}
			time.Sleep(2 * askAgainAfter)
			if err := review(); !errors.Is(err, errReviewRefused) {
				t.Errorf("%s: %s after the outage: %v", name, startsWithin, err)
			}
		})
	}
}

func TestFailedReviewsAreLimitedByPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeTokenReviews{answer: refuseAll}
		r := newReviewsUnderTest(f)
		ids := 0
		bad := func(from netip.Addr) error {
			ids++
			_, err := r.Review(t.Context(), accountToken(fmt.Sprint(ids), time.Hour), from, named)
			return err
		}
		for range failedBurst {
			if err := bad(peer); !errors.Is(err, ErrBearerRefused) {
				t.Fatal(err)
			}
		}
		if err := bad(peer); !errors.Is(err, ErrTooManyReviews) || f.count() != failedBurst {
			t.Errorf("%v after %d reviews", err, f.count())
		}
		if err := bad(otherPeer); !errors.Is(err, ErrBearerRefused) {
			t.Errorf("another peer: %v", err)
		}
		time.Sleep(10 * time.Second)
		before := f.count()
		for range 100 {
			_ = bad(peer)
			time.Sleep(50 * time.Millisecond)
		}
		if got := f.count() - before; got > failedBurst+5*failedPerSecond+1 {
			t.Errorf("%d reviews of bad tokens in 5 s", got)
		}
		// Good tokens are not counted.
		time.Sleep(10 * time.Second)
		f.answer = nil
		for range 10 * failedBurst {
			if err := bad(peer); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second / reviewsPerSecond)
		}
	})
}

// A flood of new tokens is limited, and does not hold up the known ones.
func TestReviewsAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeTokenReviews{}
		r := newReviewsUnderTest(f)
		bearer := accountToken("a", time.Hour)
		if _, err := r.Review(t.Context(), bearer, peer, named); err != nil {
			t.Fatal(err)
		}
		time.Sleep(acceptedFor)
		start, done := time.Now(), make(chan error, 500)
		for i := range cap(done) {
			from := netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
			flood := accountToken(fmt.Sprint(i), time.Hour)
			go func() {
				_, err := r.Review(t.Context(), flood, from, named)
				done <- err
			}()
		}
		synctest.Wait()
		if _, err := r.Review(t.Context(), bearer, peer, named); err != nil || time.Since(start) > 0 {
			t.Errorf("the known token: %v after %s", err, time.Since(start))
		}
		busy := 0
		for range cap(done) {
			if err := <-done; errors.Is(err, ErrTooManyReviews) {
				busy++
			}
		}
		if most := reviewsBurst + int(waitForTurn.Seconds()*reviewsPerSecond); cap(done)-busy > most || busy == 0 || time.Since(start) > waitForTurn {
			t.Errorf("%d of %d refused, after %s", busy, cap(done), time.Since(start))
		}
	})
}

// A known token stays good until the end that it would have in an outage, however many others are to be renewed, and is renewed when there
// is room again.
func TestKnownTokensInAFloodOfKnownTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeTokenReviews{}
		r := newReviewsUnderTest(f)
		know := func(bearer string) {
			r.accepted.Add(tokenKeyOf(bearer), acceptance{account("shop", "api"), time.Now(), time.Now().Add(acceptedWithout)}, acceptedWithout)
		}
		for i := range 500 {
			flood := accountToken(fmt.Sprint(i), time.Hour)
			know(flood)
			go func() {
				if _, err := r.Review(t.Context(), flood, otherPeer, named); err != nil {
					t.Error(err)
				}
			}()
		}
		synctest.Wait()
		bearer := accountToken("a", time.Hour)
		know(bearer)
		before, start := f.count(), time.Now()
		if _, err := r.Review(t.Context(), bearer, peer, named); err != nil || time.Since(start) > 0 {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		time.Sleep(acceptedFor)
		if _, err := r.Review(t.Context(), bearer, peer, named); err != nil || f.count() <= before {
			t.Errorf("afterwards: %v after %d more reviews", err, f.count()-before)
		}
	})
}

// Calls with the same token wait for one review, which goes on when the call that began it ends.
func TestReviewsAreMerged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(ctx context.Context, _ string, _ *authenticationv1.TokenReviewStatus) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(2 * time.Second):
				return nil
			}
		}
		f := &fakeTokenReviews{answer: slow}
		r := newReviewsUnderTest(f)
		bearer := accountToken("a", time.Hour)
		first, leave := context.WithCancel(t.Context())
		gone, done := make(chan error, 1), make(chan error, 20)
		go func() {
			_, err := r.Review(first, bearer, peer, named)
			gone <- err
		}()
		synctest.Wait()
		for range cap(done) {
			go func() {
				_, err := r.Review(t.Context(), bearer, otherPeer, named)
				done <- err
			}()
		}
		synctest.Wait()
		leave()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Errorf("the call that left: %v", err)
		}
		for range cap(done) {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if f.count() != 1 {
			t.Errorf("%d reviews", f.count())
		}
	})
}

func TestReviewThatStalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReviewsUnderTest(&fakeTokenReviews{answer: func(ctx context.Context, _ string, _ *authenticationv1.TokenReviewStatus) error {
			<-ctx.Done()
			return ctx.Err()
		}})
		start := time.Now()
		if _, err := r.Review(t.Context(), accountToken("a", time.Hour), peer, named); !errors.Is(err, ErrNoReview) || time.Since(start) != reviewWithin {
			t.Errorf("%v after %s", err, time.Since(start))
		}
	})
}

// The real client asks the real path, and its errors do not show the token.
func TestReviewOverHTTP(t *testing.T) {
	bearer := accountToken("a", time.Hour)
	var asked authenticationv1.TokenReviewSpec
	refuse := false
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		review := &authenticationv1.TokenReview{}
		_ = json.NewDecoder(r.Body).Decode(review)
		asked = review.Spec
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path != "/apis/authentication.k8s.io/v1/tokenreviews" || refuse {
			w.WriteHeader(http.StatusUnprocessableEntity)
			_ = json.NewEncoder(w).Encode(metav1.Status{Status: metav1.StatusFailure, Code: 422, Reason: "Invalid", Message: bearer})
			return
		}
		review.Status = authenticationv1.TokenReviewStatus{
			Authenticated: true, Audiences: []string{audience}, User: authenticationv1.UserInfo{Username: "system:serviceaccount:shop:api"},
		}
		review.SetGroupVersionKind(authenticationv1.SchemeGroupVersion.WithKind("TokenReview"))
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(review)
	}))
	defer server.Close()
	config := &rest.Config{Host: server.URL, ContentConfig: rest.ContentConfig{ContentType: "application/json"}}
	tokens, err := access.TokenReviews(config, server.Client())
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	r := NewReviews(ReviewsOptions{Tokens: tokens, Audience: audience, Log: textLogger(&log)})
	got, err := r.Review(t.Context(), bearer, peer, named)
	if err != nil || got != account("shop", "api") || asked.Token != bearer || len(asked.Audiences) != 1 || asked.Audiences[0] != audience {
		t.Errorf("%v, %v, asked for %v", got, err, asked.Audiences)
	}
	refuse = true
	if _, err = r.Review(t.Context(), accountToken("b", time.Hour), peer, named); err == nil || !strings.Contains(log.String(), "(422)") {
		t.Errorf("%v, logged %q", err, log.String())
	}
	if strings.Contains(log.String(), bearer) {
		t.Errorf("logged %s", log.String())
	}
}

func TestPeerBudgets(t *testing.T) {
	b := newPeerBudgets(5, 10)
	spend := func(from netip.Addr, at time.Time) int {
		n := 0
		for b.take(from, at) {
			n++
		}
		return n
	}
	if got := spend(peer, now); got != 10 {
		t.Errorf("%d at first", got)
	}
	if got := spend(peer, now.Add(time.Second)); got != 5 {
		t.Errorf("%d after a second", got)
	}
	if got := spend(peer, now); got != 0 {
		t.Errorf("%d when the clock goes back", got)
	}
	b.giveBack(peer, now.Add(time.Second))
	if got := spend(peer, now.Add(time.Second)); got != 1 {
		t.Errorf("%d given back", got)
	}
	six := netip.MustParseAddr("fd00::1")
	if spend(six, now) != 10 || spend(six, now) != 0 || spend(netip.MustParseAddr("fd00::2"), now) != 10 {
		t.Error("pods of one node, which share a network of 64 bits, are not counted apart")
	}
	for i := range 2 * maxBudgets {
		b.take(netip.AddrFrom4([4]byte{11, 0, byte(i >> 8), byte(i)}), now.Add(time.Second))
	}
	if len(b.peers) > maxBudgets {
		t.Errorf("%d peers are known", len(b.peers))
	}
	if got := spend(netip.MustParseAddr("12.0.0.1"), now.Add(time.Second)); got != 0 {
		t.Errorf("%d for one too many", got)
	}
	if got := spend(netip.MustParseAddr("12.0.0.1"), now.Add(time.Minute)); got != 10 {
		t.Errorf("%d when others are forgotten", got)
	}
}
