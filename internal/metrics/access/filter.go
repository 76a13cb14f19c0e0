// SPDX-License-Identifier: Apache-2.0

// Package access lets a caller read the metrics if the API server knows him and allows it. It does what controller-runtime's
// filter does with two reviews, and without linking k8s.io/apiserver.
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
	// reviewsWithin is how long both reviews of a request may take together.
	reviewsWithin = 10 * time.Second
	// allowedFor is how long a caller may go on whose token or right was taken away.
	allowedFor = time.Minute
	// deniedFor is how long a caller must wait who was just given the right.
	deniedFor = 10 * time.Second

	reviewsPerSecond = 20
	reviewsBurst     = 40
	// mostVerdicts is more than can be had within allowedFor, so that bad tokens cannot push a good one out.
	mostVerdicts = 2048

	// mostToken is more than any token of a ServiceAccount has.
	mostToken = 16 << 10

	// anonymous is whom the API server takes for a caller without credentials.
	anonymous = "system:anonymous"
)

// filter asks the API server about callers and remembers its verdicts, which are HTTP status codes.
type filter struct {
	tokens   authenticationclient.TokenReviewInterface
	accesses authorizationclient.SubjectAccessReviewInterface
	verdicts *cache.LRUExpireCache
	// failures keeps a flood of requests from becoming a flood of lines in the log.
	failures rate.Sometimes
}

// FilterProvider is for the metrics server's option of this name. The operator's own requests do not wait for the reviews: these
// have a limit of their own, which holds for both kinds together.
func FilterProvider(config *rest.Config, httpClient *http.Client) (metricsserver.Filter, error) {
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = reviewsPerSecond, reviewsBurst
	config.RateLimiter = limiter{flowcontrol.NewTokenBucketRateLimiter(config.QPS, config.Burst)}
	authentication, err := authenticationclient.NewForConfigAndClient(config, httpClient)
	if err != nil {
		return nil, fmt.Errorf("setting up the client for token reviews: %w", err)
	}
	authorization, err := authorizationclient.NewForConfigAndClient(config, httpClient)
	if err != nil {
		return nil, fmt.Errorf("setting up the client for access reviews: %w", err)
	}
	f := &filter{
		tokens:   authentication.TokenReviews(),
		accesses: authorization.SubjectAccessReviews(),
		verdicts: cache.NewLRUExpireCache(mostVerdicts),
		failures: rate.Sometimes{First: 1, Interval: time.Second},
	}
	return f.wrap, nil
}

// wrap is a metricsserver.Filter. Its answers tell nothing but their status.
func (f *filter) wrap(logger logr.Logger, next http.Handler) (http.Handler, error) {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		status := http.StatusUnauthorized
		if token, ok := bearer(req.Header); ok {
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

// judge gives the verdict, and StatusInternalServerError when there is none. That is not remembered.
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
		// A caller who went away is no failure.
		if req.Context().Err() == nil {
			f.failures.Do(func() { logger.Error(describe(err, token), "could not tell who may read the metrics") })
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

// review asks who holds the token, and then whether he may.
func (f *filter) review(ctx context.Context, token, verb, path string) (int, error) {
	known, err := f.tokens.Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token},
	}, metav1.CreateOptions{})
	if err != nil {
		return 0, fmt.Errorf("reviewing the token: %w", err)
	}
	user := known.Status.User
	// An API server that admits anonymous requests could take a token that it does not understand for none.
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

// verdictKey does not hold the token, and has one length. No part can hold the byte between them: net/http refuses it in
// a method, bearer in a token, and the path is last.
func verdictKey(token, verb, path string) [sha256.Size]byte {
	return sha256.Sum256([]byte(token + "\x00" + verb + "\x00" + path))
}

// bearer is the token of the one Authorization header. Tokens are printable ASCII without spaces: more than RFC 6750 allows,
// because authenticators other than the API server's own use more.
func bearer(header http.Header) (string, bool) {
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
