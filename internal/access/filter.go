// SPDX-License-Identifier: Apache-2.0

// Package access authenticates and authorizes requests with TokenReview and SubjectAccessReview.
//
// It does what the filter of controller-runtime does, but does not link k8s.io/apiserver.
package access

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/time/rate"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/cache"
	authenticationclient "k8s.io/client-go/kubernetes/typed/authentication/v1"
	authorizationclient "k8s.io/client-go/kubernetes/typed/authorization/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

const (
	// reviewsWithin limits the time that both reviews of a request take together.
	reviewsWithin = 10 * time.Second
	// allowedFor is how long an approval is cached. A caller whose token or permission is revoked keeps access until then.
	allowedFor = time.Minute
	// deniedFor is how long a refusal is cached. A caller that was just granted the permission waits at most this long.
	deniedFor = 10 * time.Second

	// reviewsPerSecond and reviewsBurst limit the reviews of both kinds together.
	reviewsPerSecond = 20
	reviewsBurst     = 40
	// mostVerdicts exceeds the number of reviews that fit into allowedFor, so that bad tokens cannot evict a good one.
	mostVerdicts = 2048

	// mostToken limits the length of a token in bytes. The tokens of ServiceAccounts are much shorter.
	mostToken = 16 << 10

	// anonymous is the name that the API server gives to callers without credentials.
	anonymous = "system:anonymous"
)

// filter asks the API server about callers and caches its verdicts as HTTP status codes.
type filter struct {
	tokens   authenticationclient.TokenReviewInterface
	accesses authorizationclient.SubjectAccessReviewInterface
	verdicts *cache.LRUExpireCache
	// failures limits how often a failed review is logged.
	failures rate.Sometimes
}

// FilterProvider returns a filter for the metrics. It has the type that controller-runtime gives such functions. The reviews have a rate
// limit of their own, so that they do not delay the operator's other requests.
func FilterProvider(config *rest.Config, httpClient *http.Client) (metricsserver.Filter, error) {
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = reviewsPerSecond, reviewsBurst
	config.RateLimiter = limiter{flowcontrol.NewTokenBucketRateLimiter(config.QPS, config.Burst)}
	tokens, err := TokenReviews(config, httpClient)
	if err != nil {
		return nil, err
	}
	authorization, err := authorizationclient.NewForConfigAndClient(config, httpClient)
	if err != nil {
		return nil, fmt.Errorf("setting up the client for access reviews: %w", err)
	}
	f := &filter{
		tokens:   tokens,
		accesses: authorization.SubjectAccessReviews(),
		verdicts: cache.NewLRUExpireCache(mostVerdicts),
		failures: rate.Sometimes{First: 1, Interval: time.Second},
	}
	return f.wrap, nil
}

// TokenReviews returns a client for token reviews. It has no rate limit but that of the configuration's RateLimiter.
func TokenReviews(config *rest.Config, httpClient *http.Client) (authenticationclient.TokenReviewInterface, error) {
	config = rest.CopyConfig(config)
	config.QPS = -1
	authentication, err := authenticationclient.NewForConfigAndClient(config, httpClient)
	if err != nil {
		return nil, fmt.Errorf("setting up the client for token reviews: %w", err)
	}
	return authentication.TokenReviews(), nil
}

// wrap implements metricsserver.Filter. The body of a refusal contains only the text of its HTTP status.
func (f *filter) wrap(logger logr.Logger, next http.Handler) (http.Handler, error) {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		status := http.StatusUnauthorized
		if token, ok := Bearer(req.Header); ok {
			status = f.judge(req, token, logger)
		}
		if status == http.StatusOK {
			next.ServeHTTP(w, req)
			return
		}
		if status == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", "Bearer")
		}
		http.Error(w, http.StatusText(status), status)
	}), nil
}

// judge returns the verdict about a request, from the cache if possible. If the reviews fail it returns
// StatusInternalServerError, which is not cached.
func (f *filter) judge(req *http.Request, token string, logger logr.Logger) int {
	verb := strings.ToLower(req.Method)
	key := verdictKey(token, verb, req.URL.Path)
	if known, ok := f.verdicts.Get(key); ok {
		return known.(int)
	}
	ctx, cancel := context.WithTimeout(req.Context(), reviewsWithin)
	defer cancel()
	status, err := f.review(ctx, token, verb, req.URL.Path)
	if err != nil {
		// If the caller has disconnected, the error is not a failure of the reviews.
		if req.Context().Err() == nil {
			f.failures.Do(func() { logger.Error(Describe(err, token), "could not tell who may read the metrics") })
		}
		return http.StatusInternalServerError
	}
	ttl := deniedFor
	if status == http.StatusOK {
		ttl = allowedFor
	}
	f.verdicts.Add(key, status, ttl)
	return status
}

// review asks the API server whom the token belongs to, and then whether that user has permission.
func (f *filter) review(ctx context.Context, token, verb, path string) (int, error) {
	known, err := f.tokens.Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token},
	}, metav1.CreateOptions{})
	if err != nil {
		return 0, fmt.Errorf("reviewing the token: %w", err)
	}
	user := known.Status.User
	// An API server that allows anonymous requests may treat a token that it does not understand as an anonymous request.
	if !known.Status.Authenticated || user.Username == "" || user.Username == anonymous {
		return http.StatusUnauthorized, nil
	}
	extra := make(map[string]authorizationv1.ExtraValue, len(user.Extra))
	for name, values := range user.Extra {
		extra[name] = authorizationv1.ExtraValue(values)
	}
	access, err := f.accesses.Create(ctx, &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{
			NonResourceAttributes: &authorizationv1.NonResourceAttributes{Path: path, Verb: verb},
			User:                  user.Username,
			UID:                   user.UID,
			Groups:                user.Groups,
			Extra:                 extra,
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return 0, fmt.Errorf("reviewing the access: %w", err)
	}
	if !access.Status.Allowed || access.Status.Denied {
		return http.StatusForbidden, nil
	}
	return http.StatusOK, nil
}

// verdictKey returns a cache key of fixed size that does not reveal the token. The separator cannot occur in the parts before it:
// net/http rejects it in a method and Bearer rejects it in a token.
func verdictKey(token, verb, path string) [sha256.Size]byte {
	return sha256.Sum256([]byte(token + "\x00" + verb + "\x00" + path))
}

// Bearer returns the token of the Authorization header, and false if there is none, more than one or a malformed one. It accepts
// all printable ASCII except spaces. RFC 6750 allows less, but some authenticators use other characters.
func Bearer(header http.Header) (string, bool) {
	values := header.Values("Authorization")
	if len(values) != 1 {
		return "", false
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	token = strings.Trim(token, " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" || len(token) > mostToken {
		return "", false
	}
	unprintable := func(r rune) bool { return r <= ' ' || r > '~' }
	return token, !strings.ContainsFunc(token, unprintable)
}
