// SPDX-License-Identifier: Apache-2.0

package access

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr/funcr"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
)

const good = "eyJhbGciOiJSUzI1NiJ9.a-good_token~+/.signature=="

// apiServer is a fake API server that answers reviews. It is a RoundTripper, because real connections do not work with the fake
// time of synctest.
type apiServer struct {
	// token and access may modify a positive answer. If they return a handler, it answers instead.
	token  func(*http.Request, *authenticationv1.TokenReview) http.Handler
	access func(*http.Request, *authorizationv1.SubjectAccessReview) http.Handler
	// err, if not nil, is the result of every request.
	err error

	mu       sync.Mutex
	tokens   int
	accesses int
	asked    authorizationv1.SubjectAccessReviewSpec
}

func (s *apiServer) RoundTrip(req *http.Request) (*http.Response, error) {
	if s.err != nil {
		return nil, s.err
	}
	var answer http.Handler
	switch req.Method + " " + req.URL.Path {
	case "POST /apis/authentication.k8s.io/v1/tokenreviews":
		answer = s.reviewToken(req)
	case "POST /apis/authorization.k8s.io/v1/subjectaccessreviews":
		answer = s.reviewAccess(req)
	default:
		answer = http.NotFoundHandler()
	}
	w := httptest.NewRecorder()
	answer.ServeHTTP(w, req)
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	return w.Result(), nil
}

func (s *apiServer) reviewToken(req *http.Request) http.Handler {
	review := &authenticationv1.TokenReview{}
	if err := decode(req, review); err != nil {
		return status(http.StatusBadRequest, err.Error())
	}
	s.mu.Lock()
	s.tokens++
	s.mu.Unlock()
	if review.Spec.Token == good {
		review.Status = authenticationv1.TokenReviewStatus{Authenticated: true, User: prometheus()}
	} else {
		review.Status.Error = "invalid bearer token" // the text of a real API server
	}
	if s.token != nil {
		if answer := s.token(req, review); answer != nil {
			return answer
		}
	}
	review.SetGroupVersionKind(authenticationv1.SchemeGroupVersion.WithKind("TokenReview"))
	return object(http.StatusCreated, review)
}

func (s *apiServer) reviewAccess(req *http.Request) http.Handler {
	review := &authorizationv1.SubjectAccessReview{}
	if err := decode(req, review); err != nil {
		return status(http.StatusBadRequest, err.Error())
	}
	s.mu.Lock()
	s.accesses++
	s.asked = review.Spec
	s.mu.Unlock()
	review.Status.Allowed = true
	if s.access != nil {
		if answer := s.access(req, review); answer != nil {
			return answer
		}
	}
	review.SetGroupVersionKind(authorizationv1.SchemeGroupVersion.WithKind("SubjectAccessReview"))
	return object(http.StatusCreated, review)
}

// decode decodes a body of JSON or protobuf, both of which the clients send.
func decode(req *http.Request, into runtime.Object) error {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return err
	}
	_, _, err = clientgoscheme.Codecs.UniversalDeserializer().Decode(body, nil, into)
	return err
}

func prometheus() authenticationv1.UserInfo {
	return authenticationv1.UserInfo{
		Username: "system:serviceaccount:monitoring:prometheus",
		UID:      "0b3c",
		Groups:   []string{"system:serviceaccounts", "system:authenticated"},
		Extra:    map[string]authenticationv1.ExtraValue{"authentication.kubernetes.io/pod-name": {"prometheus-0"}},
	}
}

func object(code int, o any) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(o)
	})
}

func status(code int, message string) http.Handler {
	return object(code, &metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure,
		Reason: metav1.StatusReasonInternalError, Code: int32(code), Message: message, //nolint:gosec // an HTTP status
	})
}

// endpoint is a handler that serves "metrics" behind the filter, together with the filter's log.
type endpoint struct {
	http.Handler
	*apiServer

	mu  sync.Mutex
	log []string
}

func newEndpoint(t *testing.T, api *apiServer) *endpoint {
	t.Helper()
	filter, err := FilterProvider(&rest.Config{Host: "https://api.example.com"}, &http.Client{Transport: api})
	if err != nil {
		t.Fatal(err)
	}
	e := &endpoint{apiServer: api}
	logger := funcr.New(func(_, args string) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.log = append(e.log, args)
	}, funcr.Options{Verbosity: 10})
	page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "metrics") })
	if e.Handler, err = filter(logger, page); err != nil {
		t.Fatal(err)
	}
	return e
}

func get(ctx context.Context, token string) *http.Request {
	req := httptest.NewRequestWithContext(ctx, http.MethodGet, "/metrics", nil)
	req.Header.Set("Authorization", "Bearer "+token)
	return req
}

// scrape sends a request and returns its result. It fails the test if the answer or the log contains the token, or if a refusal
// contains the page.
func (e *endpoint) scrape(t *testing.T, req *http.Request) int {
	t.Helper()
	w := httptest.NewRecorder()
	e.ServeHTTP(w, req)
	if got, want := w.Body.String() == "metrics", w.Code == http.StatusOK; got != want {
		t.Errorf("status %d with the body %q", w.Code, w.Body)
	}
	if want := http.StatusText(w.Code) + "\n"; w.Code != http.StatusOK && w.Body.String() != want {
		t.Errorf("the body is %q, want %q", w.Body, want)
	}
	if got, want := w.Header().Get("WWW-Authenticate") == "Bearer", w.Code == http.StatusUnauthorized; got != want {
		t.Errorf("status %d with the headers %v", w.Code, w.Header())
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	_, token, _ := strings.Cut(req.Header.Get("Authorization"), " ")
	if token = strings.TrimSpace(token); token != "" && strings.Contains(fmt.Sprint(e.log, w.Body, w.Header()), token) {
		t.Errorf("the token is in the answer or in the log: %v, %q, %v", w.Header(), w.Body, e.log)
	}
	return w.Code
}

// lines returns what was logged since the last call.
func (e *endpoint) lines() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	log := e.log
	e.log = nil
	return log
}

// counts fails the test unless exactly these numbers of reviews were made.
func (e *endpoint) counts(t *testing.T, tokens, accesses int) {
	t.Helper()
	e.apiServer.mu.Lock()
	defer e.apiServer.mu.Unlock()
	if e.tokens != tokens || e.accesses != accesses {
		t.Errorf("%d token reviews and %d access reviews, want %d and %d", e.tokens, e.accesses, tokens, accesses)
	}
}

// TestCredentials checks that a request without a well-formed token causes no review.
func TestCredentials(t *testing.T) {
	long := strings.Repeat("x", mostToken)
	for name, test := range map[string]struct {
		headers  []string
		reviewed bool
	}{
		"none":                {nil, false},
		"empty":               {[]string{""}, false},
		"scheme alone":        {[]string{"Bearer"}, false},
		"no token":            {[]string{"Bearer "}, false},
		"only spaces":         {[]string{"Bearer    "}, false},
		"another scheme":      {[]string{"Basic dXNlcjpwYXNz"}, false},
		"scheme in lower":     {[]string{"bearer " + good}, true},
		"scheme in upper":     {[]string{"BEARER " + good}, true},
		"scheme in one word":  {[]string{"Bearer" + good}, false},
		"spaces around":       {[]string{"Bearer   " + good + "  "}, true},
		"two words":           {[]string{"Bearer " + good + " more"}, false},
		"tab":                 {[]string{"Bearer \t" + good}, false},
		"control character":   {[]string{"Bearer " + good + "\x00"}, false},
		"beyond ASCII":        {[]string{"Bearer " + good + "ü"}, false},
		"bytes":               {[]string{"Bearer " + good + "\xff"}, false},
		"two headers":         {[]string{"Bearer " + good, "Bearer " + good}, false},
		"as long as can be":   {[]string{"Bearer " + long}, true},
		"longer":              {[]string{"Bearer " + long + "x"}, false},
		"of another provider": {[]string{"Bearer kubeconfig-user:abc"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEndpoint(t, &apiServer{})
			req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil)
			for _, value := range test.headers {
				req.Header.Add("Authorization", value)
			}
			got := e.scrape(t, req)
			if e.tokens > 0 != test.reviewed {
				t.Errorf("%d token reviews", e.tokens)
			}
			if !test.reviewed && got != http.StatusUnauthorized {
				t.Errorf("status %d, want 401", got)
			}
			if log := e.lines(); len(log) > 0 {
				t.Errorf("the log: %v", log)
			}
		})
	}
}

// TestVerdicts checks the status that follows from each answer of the API server.
func TestVerdicts(t *testing.T) {
	user := func(change func(*authenticationv1.TokenReviewStatus)) func(*http.Request, *authenticationv1.TokenReview) http.Handler {
		return func(_ *http.Request, r *authenticationv1.TokenReview) http.Handler { change(&r.Status); return nil }
	}
	access := func(answer authorizationv1.SubjectAccessReviewStatus) func(*http.Request, *authorizationv1.SubjectAccessReview) http.Handler {
		return func(_ *http.Request, r *authorizationv1.SubjectAccessReview) http.Handler {
			r.Status = answer
			return nil
		}
	}
	for name, test := range map[string]struct {
		api      *apiServer
		want     int
		accesses int
	}{
		"allowed": {&apiServer{}, http.StatusOK, 1},
		"not authenticated": {
			&apiServer{token: user(func(s *authenticationv1.TokenReviewStatus) { s.Authenticated = false })}, http.StatusUnauthorized, 0,
		},
		"no answer": {
			&apiServer{token: user(func(s *authenticationv1.TokenReviewStatus) { *s = authenticationv1.TokenReviewStatus{} })},
			http.StatusUnauthorized, 0,
		},
		"nobody": {
			&apiServer{token: user(func(s *authenticationv1.TokenReviewStatus) { s.User.Username = "" })}, http.StatusUnauthorized, 0,
		},
		"anonymous": {
			&apiServer{token: user(func(s *authenticationv1.TokenReviewStatus) { s.User.Username = anonymous })}, http.StatusUnauthorized, 0,
		},
		"not allowed":        {&apiServer{access: access(authorizationv1.SubjectAccessReviewStatus{})}, http.StatusForbidden, 1},
		"denied":             {&apiServer{access: access(authorizationv1.SubjectAccessReviewStatus{Denied: true})}, http.StatusForbidden, 1},
		"allowed and denied": {&apiServer{access: access(authorizationv1.SubjectAccessReviewStatus{Allowed: true, Denied: true})}, http.StatusForbidden, 1},
		"not known": {
			&apiServer{access: access(authorizationv1.SubjectAccessReviewStatus{EvaluationError: "no such role"})}, http.StatusForbidden, 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEndpoint(t, test.api)
			if got := e.scrape(t, get(t.Context(), good)); got != test.want {
				t.Errorf("status %d, want %d", got, test.want)
			}
			e.counts(t, 1, test.accesses)
			if log := e.lines(); len(log) > 0 {
				t.Errorf("the log: %v", log)
			}
		})
	}
}

// TestWhatIsAsked checks that a review names all attributes of the user, the path and the verb.
func TestWhatIsAsked(t *testing.T) {
	e := newEndpoint(t, &apiServer{})
	req := get(t.Context(), good)
	req.Method, req.URL.RawQuery = http.MethodPost, "name=x"
	e.scrape(t, req)
	user := prometheus()
	want := authorizationv1.SubjectAccessReviewSpec{
		NonResourceAttributes: &authorizationv1.NonResourceAttributes{Path: "/metrics", Verb: "post"},
		User:                  user.Username, UID: user.UID, Groups: user.Groups,
		Extra: map[string]authorizationv1.ExtraValue{"authentication.kubernetes.io/pod-name": {"prometheus-0"}},
	}
	if !reflect.DeepEqual(e.asked, want) {
		t.Errorf("asked about %+v, want %+v", e.asked, want)
	}
}

// TestVerdictsAreRemembered checks that an approval is cached for a minute and a refusal for ten seconds, each only for the same
// token, verb and path.
func TestVerdictsAreRemembered(t *testing.T) {
	allowed := &apiServer{}
	forbidden := &apiServer{access: func(_ *http.Request, r *authorizationv1.SubjectAccessReview) http.Handler {
		r.Status.Allowed = false
		return nil
	}}
	for name, test := range map[string]struct {
		api      *apiServer
		token    string
		want     int
		accesses int
		ttl      time.Duration
	}{
		"allowed":           {allowed, good, http.StatusOK, 1, time.Minute},
		"forbidden":         {forbidden, good, http.StatusForbidden, 1, 10 * time.Second},
		"not authenticated": {&apiServer{}, "stale", http.StatusUnauthorized, 0, 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEndpoint(t, test.api)
				scrape := func(change func(*http.Request)) {
					t.Helper()
					req := get(t.Context(), test.token)
					change(req)
					if got := e.scrape(t, req); got != test.want {
						t.Errorf("status %d, want %d", got, test.want)
					}
				}
				same := func(*http.Request) {}
				scrape(same)
				time.Sleep(test.ttl - time.Nanosecond)
				scrape(same)
				e.counts(t, 1, test.accesses)
				time.Sleep(2 * time.Nanosecond)
				scrape(same)
				e.counts(t, 2, 2*test.accesses)
				scrape(func(r *http.Request) { r.Method = http.MethodPost })
				e.counts(t, 3, 3*test.accesses)
				scrape(func(r *http.Request) { r.URL.Path = "/metrics/more" })
				e.counts(t, 4, 4*test.accesses)
			})
		})
	}
	e := newEndpoint(t, &apiServer{})
	if got := e.scrape(t, get(t.Context(), good)); got != http.StatusOK {
		t.Errorf("status %d, want 200", got)
	}
	if got := e.scrape(t, get(t.Context(), good+"=")); got != http.StatusUnauthorized {
		t.Errorf("status %d for another token, want 401", got)
	}
}

// TestFailures checks that a failed review leads to status 500 and one line in the log, neither with the token, and that the next
// request is reviewed again.
func TestFailures(t *testing.T) {
	quoted := fmt.Sprintf("TokenReview is invalid: spec.token: Invalid value: %q", good)
	text := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, `{"token":%q}`, good) })
	token := func(answer http.Handler) *apiServer {
		return &apiServer{token: func(*http.Request, *authenticationv1.TokenReview) http.Handler { return answer }}
	}
	access := func(answer http.Handler) *apiServer {
		return &apiServer{access: func(*http.Request, *authorizationv1.SubjectAccessReview) http.Handler { return answer }}
	}
	for name, test := range map[string]struct {
		api  *apiServer
		want string
	}{
		"token review refused":      {token(status(http.StatusUnprocessableEntity, quoted)), "InternalError (422)"},
		"token review forbidden":    {token(status(http.StatusForbidden, quoted)), "(403)"},
		"token review unreadable":   {token(text), errUnreadable.Error()},
		"access review refused":     {access(status(http.StatusInternalServerError, quoted)), "InternalError (500)"},
		"access review unreadable":  {access(text), errUnreadable.Error()},
		"no connection":             {&apiServer{err: errors.New("connection refused")}, "connection refused"},
		"an error with the token":   {&apiServer{err: fmt.Errorf("malformed HTTP response %q", good)}, "[redacted]"},
		"an API server that is old": {token(http.NotFoundHandler()), "(404)"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEndpoint(t, test.api)
				if got := e.scrape(t, get(t.Context(), good)); got != http.StatusInternalServerError {
					t.Errorf("status %d, want 500", got)
				}
				if log := e.lines(); len(log) != 1 || !strings.Contains(log[0], test.want) {
					t.Errorf("the log is %v, want one line with %q", log, test.want)
				}
				test.api.token, test.api.access, test.api.err = nil, nil, nil
				if got := e.scrape(t, get(t.Context(), good)); got != http.StatusOK {
					t.Errorf("status %d after the failure, want 200", got)
				}
			})
		})
	}
}

// slow delays a review for the given time or until its request is cancelled.
func slow(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// TestDeadline checks that both reviews together are cut off after ten seconds.
func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEndpoint(t, &apiServer{
			token: func(r *http.Request, _ *authenticationv1.TokenReview) http.Handler {
				slow(r.Context(), 6*time.Second)
				return nil
			},
			access: func(r *http.Request, _ *authorizationv1.SubjectAccessReview) http.Handler {
				slow(r.Context(), time.Hour)
				return nil
			},
		})
		start := time.Now()
		if got := e.scrape(t, get(t.Context(), good)); got != http.StatusInternalServerError {
			t.Errorf("status %d, want 500", got)
		}
		if took := time.Since(start); took != 10*time.Second {
			t.Errorf("it took %v", took)
		}
		e.counts(t, 1, 1)
		if log := e.lines(); len(log) != 1 || !strings.Contains(log[0], "did not answer in time") {
			t.Errorf("the log is %v", log)
		}
	})
}

// TestCallerGoesAway checks that a review is cancelled with its request, logs nothing and caches no verdict.
func TestCallerGoesAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := &apiServer{token: func(r *http.Request, _ *authenticationv1.TokenReview) http.Handler {
			slow(r.Context(), time.Hour)
			return nil
		}}
		e := newEndpoint(t, api)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if got := e.scrape(t, get(ctx, good)); got == http.StatusOK {
			t.Error("status 200 without a verdict")
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("it took %v", took)
		}
		if log := e.lines(); len(log) > 0 {
			t.Errorf("the log: %v", log)
		}
		api.token = nil
		if got := e.scrape(t, get(t.Context(), good)); got != http.StatusOK {
			t.Errorf("status %d afterwards, want 200", got)
		}
	})
}

// TestFlood checks that a flood of bad tokens causes at most 20 reviews and one log line a second, and that callers that
// were approved before keep access.
func TestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEndpoint(t, &apiServer{})
		e.scrape(t, get(t.Context(), good))
		time.Sleep(time.Minute / 2) // until the burst is available again
		e.scrape(t, get(t.Context(), good))
		e.counts(t, 1, 1)
		start := time.Now()
		var callers sync.WaitGroup
		for i := range 1000 {
			callers.Go(func() {
				if got := e.scrape(t, get(t.Context(), fmt.Sprintf("bad-%d", i))); got == http.StatusOK {
					t.Error("let in")
				}
			})
		}
		callers.Wait()
		if took := time.Since(start); took > reviewsWithin {
			t.Errorf("the last caller waited %v", took)
		}
		most := 1 + reviewsBurst + 10*reviewsPerSecond
		// The last one may be admitted at the moment of its deadline.
		if e.tokens > most || e.tokens < most-1 {
			t.Errorf("%d token reviews, want %d", e.tokens, most)
		}
		if log := e.lines(); len(log) == 0 || len(log) > 11 || !strings.Contains(log[0], errBusy.Error()) {
			t.Errorf("the log is %v", log)
		}
		if got := e.scrape(t, get(t.Context(), good)); got != http.StatusOK || e.accesses != 1 {
			t.Errorf("status %d and %d access reviews, want 200 and 1", got, e.accesses)
		}
	})
}

// TestBadTokensCannotPushOutAGoodOne sends bad tokens at the highest rate for as long as an approval is cached.
func TestBadTokensCannotPushOutAGoodOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEndpoint(t, &apiServer{})
		time.Sleep(time.Minute)
		start := time.Now()
		e.scrape(t, get(t.Context(), good))
		bad := 0
		// The fake time advances only because requests wait for the rate limit.
		for ; time.Since(start) < allowedFor-time.Second && bad < 2*mostVerdicts; bad++ {
			e.scrape(t, get(t.Context(), fmt.Sprintf("bad-%d", bad)))
		}
		if bad < 1000 || bad == 2*mostVerdicts {
			t.Errorf("%d bad tokens in %v", bad, time.Since(start))
		}
		e.scrape(t, get(t.Context(), good))
		e.counts(t, 1+bad, 1)
	})
}

// TestTheConfigIsLeftAlone checks that FilterProvider does not modify the configuration, which the operator's other clients share.
func TestTheConfigIsLeftAlone(t *testing.T) {
	config := &rest.Config{Host: "https://api.example.com", QPS: -1}
	before := *config
	if _, err := FilterProvider(config, &http.Client{}); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(*config, before) {
		t.Errorf("the config is %v", config)
	}
	if _, err := FilterProvider(&rest.Config{Host: "://"}, &http.Client{}); err == nil {
		t.Error("no error for a host that is none")
	}
}
