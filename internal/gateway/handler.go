// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/go-logr/logr"

	"github.com/wechat-token-operator/wechat-token-operator/internal/access"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// Reasons that several refusals have, or on which something depends. reasonGone is that of one that nobody is there to read, and
// reasonUnanswered that of a call which WeChat may have carried out and must not carry out twice.
const (
	reasonAppID      = "appid"
	reasonGone       = "gone"
	reasonMethod     = "method"
	reasonUnanswered = "unanswered"
)

// Options are what a Gateway works with. Source and Relay are required.
type Options struct {
	Source Source
	// Reviewer tells whose a Bearer token is. Without it, no ServiceAccount is known.
	Reviewer Reviewer
	// Relay passes on what the policy allows.
	Relay relayer
	// Now is the clock that decisions use, by default time.Now.
	Now func() time.Time
	// Record gets each call when it is over, for the audit log and the metrics. By default nobody does.
	Record func(*Call)
	// NewID returns the id of a call. By default it is random.
	NewID func() string
	// Log gets what should never happen. It gets no value of a request.
	Log logr.Logger
}

// Gateway answers calls of WeChat's API, or has them passed on. It is an http.Handler. It reads the request target as it came, so there
// must be no ServeMux before it, and the server's DisableGeneralOptionsHandler should be set, or net/http answers OPTIONS * itself.
type Gateway struct {
	Options

	// users limits the calls of peers who are not known, which only the paths of users allow.
	users *peerBudgets
}

// New returns a Gateway.
func New(o Options) *Gateway {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Record == nil {
		o.Record = func(*Call) {}
	}
	if o.NewID == nil {
		o.NewID = func() string { return strconv.FormatUint(rand.Uint64(), 36) } //nolint:gosec // an id is no secret
	}
	if o.Reviewer == nil {
		o.Reviewer = noReviewer{}
	}
	return &Gateway{Options: o, users: newPeerBudgets(userCallsPerSecond, userCallsBurst)}
}

// ServeHTTP implements http.Handler. Each call is recorded when it is over, however it ends.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &Call{ID: g.NewID(), Started: g.Now(), Peer: peerAddr(r.RemoteAddr), Method: r.Method, Status: http.StatusOK}
	defer func() {
		ended := recover()
		if ended != nil && ended != http.ErrAbortHandler { //nolint:errorlint // net/http compares it like this, too
			// net/http would log the value, which may hold anything. The caller sees that the connection is closed.
			g.Log.Error(nil, "a call of the gateway failed in a way that it should not", "id", c.ID, "at", callers())
			c.refuse(OutcomeUnavailable, refusal{code: codeBusy, reason: "internal_error"})
			c.Status = http.StatusInternalServerError
			ended = http.ErrAbortHandler
		}
		c.Duration = g.Now().Sub(c.Started)
		g.Record(c)
		if ended != nil {
			panic(ended)
		}
	}()
	g.serve(w, r, c) //nolint:contextcheck // the context is that of the request
}

// serve answers a call or has it passed on. Everything is decided by one policy.
func (g *Gateway) serve(w http.ResponseWriter, r *http.Request, c *Call) {
	policy, _ := g.Source.Policy()
	d := decision{Gateway: g, policy: policy, call: c, w: w, r: r}
	if f, bad := d.malformed(); bad {
		d.deny(f)
		return
	}
	if !policy.isKnown() {
		d.refuse(refusalStarting)
		return
	}
	c.Kind = KindOf(c.Target.Path)
	switch c.Kind {
	case KindToken:
		d.token()
	case KindTicket:
		d.ticket()
	case KindLogin:
		d.login()
	case KindUser:
		d.user()
	default:
		d.other()
	}
}

// decision is what is at hand while a call is decided.
type decision struct {
	*Gateway

	policy *Policy
	call   *Call
	w      http.ResponseWriter
	r      *http.Request
}

// malformed parses the request target, and refuses what no program sends that means well. It does not look at r.URL, which is another
// reading of the same bytes, nor at the body, so that a caller with "Expect: 100-continue" is not asked for it.
func (d decision) malformed() (f refusal, bad bool) {
	target, err := ParseTarget(d.r.RequestURI)
	if err == nil {
		d.call.Target = target
	}
	switch {
	case d.r.Method != http.MethodGet && d.r.Method != http.MethodPost:
		if !isWord(d.r.Method) {
			d.call.Method = "other"
		}
		return refusal{codeNeedsPost, reasonMethod, "only GET and POST are served."}, true
	case errors.Is(err, errTokenKey):
		return refusal{codeNoToken, "target", err.Error() + "."}, true
	case err != nil:
		return refusal{codeNotAllowed, "target", err.Error() + "."}, true
	case len(d.r.Header[requestIDHeader]) > 0:
		return refusal{codeBusy, "loop", "this request comes from a gateway: the address that a gateway takes for WeChat's leads back to it; " +
			"an administrator must exempt it from what points WeChat's names at the gateway."}, true
	case len(d.r.Header.Values("Authorization")) > 1:
		return refusal{codeTokenInvalid, "authorization", "there are two Authorization headers: send one."}, true
	case len(d.r.Header.Values("Upgrade")) > 0:
		return refusal{codeNotAllowed, "upgrade", "the gateway speaks HTTP/1.1 only and upgrades no connection."}, true
	}
	return refusal{}, false
}

// isWord reports whether a method is short and has upper-case letters only, so that it can be shown.
func isWord(method string) bool {
	return len(method) <= 16 && strings.Trim(method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}

// other decides about calls that are passed on with the account's token.
func (d decision) other() {
	client, f, ok := d.identify()
	switch {
	case !ok:
		d.refuse(f)
		return
	case d.call.Kind != KindRelay:
		d.deny(refusal{codeNotAllowed, "never_passed_on", "this path is never passed on, whatever spec.paths says: " +
			"it issues credentials or spends what the whole account has."})
		return
	case !client.allows(d.call.Target.Path):
		d.deny(pathRefusal())
		return
	case !client.Account.Valid(d.call.Started):
		d.refuse(noTokenRefusal(client.Account))
		return
	}
	target := d.call.Target
	d.Relay.relay(d.w, d.r, forward{
		call:  d.call,
		path:  target.Path,
		query: func(with token.Value) string { return target.Query(with) },
		token: client.Account.Token,
		still: d.still,
	})
}

// gatewayToken returns the token of the gateway that the caller sent, in the place of WeChat's or as a Bearer token.
func (d decision) gatewayToken() string {
	if bearer, ok := access.Bearer(d.r.Header); ok {
		return bearer
	}
	return d.call.Target.AccessToken()
}

// answer sends what was asked for.
func (d decision) answer(v any) {
	d.call.Outcome = OutcomeAnswered
	writeJSON(d.w, d.call.ID, http.StatusOK, v)
}

// deny refuses what the caller may not do.
func (d decision) deny(f refusal) {
	d.call.refuse(OutcomeDenied, f)
	f.write(d.w, d.call.ID)
}

// refuse refuses a call with the outcome that the errcode means.
func (d decision) refuse(f refusal) {
	if f.reason == reasonGone {
		d.call.Outcome, d.call.Reason, d.call.Status = OutcomeGone, f.reason, 499
		return
	}
	d.call.refuse(f.outcome(), f)
	f.write(d.w, d.call.ID)
}

// allows reports whether the client's paths allow a path.
func (c *Client) allows(path string) bool {
	for _, pattern := range c.Paths {
		if PathAllowed(pattern, path) {
			return true
		}
	}
	return false
}

func pathRefusal() refusal {
	return refusal{codeNotAllowed, "path", "spec.paths of the WeChatAppClient does not allow this path: add it there."}
}

func noTokenRefusal(a *Account) refusal {
	return refusal{codeBusy, "no_token", a.lacks("access token", a.Token, a.ExpiresAt)}
}

// lacks says since when the store has no valid token or ticket of the account, given the one that it has.
func (a *Account) lacks(what string, has token.Value, expiresAt time.Time) string {
	text := "the store has no " + what + " yet"
	if !has.IsZero() {
		text = "the store has no valid " + what + " since " + expiresAt.UTC().Format(time.RFC3339)
	}
	return text + "; look at the WeChatAppToken " + a.Name.String() + "."
}

// peerAddr returns the address of a peer; the zero Addr if it has none.
func peerAddr(remote string) netip.Addr {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	return at.Addr().Unmap().WithZone("")
}

// callers returns where a panic came from: functions and lines alone, because a trace of the runtime shows arguments.
func callers() []string {
	var pcs [24]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs[:])])
	var at []string
	for {
		frame, more := frames.Next()
		at = append(at, frame.Function+":"+strconv.Itoa(frame.Line))
		if !more {
			return at
		}
	}
}
