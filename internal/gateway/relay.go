// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat"
)

// Defaults of RelayOptions.
const (
	defaultRelayTimeout    = 10 * time.Second
	defaultRelayInFlight   = 512
	defaultMaxBufferedSize = 64 << 20
)

// RelayOptions configures a Relay.
type RelayOptions struct {
	// Endpoints, CAFile and Timeout are those of wechat.Options. Timeout is how long WeChat may make no progress with a call; the default is
	// 10 s.
	Endpoints []string
	CAFile    string
	Timeout   time.Duration
	// MaxInFlight limits the calls that are passed on at the same time; the default is 512. MaxInFlightPerClient limits those of one
	// client; the default is a half of MaxInFlight.
	MaxInFlight, MaxInFlightPerClient int
	// MaxBufferedBytes limits the memory for the bodies of requests that are held; the default is 64 MiB.
	MaxBufferedBytes int64
	// Source tells whether the store has a newer token than the one that WeChat refused.
	Source Source
	// Hint is called if WeChat refused the token that the store has. It must return at once. It may be nil.
	Hint func(client *Client, refused string)
	// Problem is called with what is wrong with the connection to WeChat, in words for whoever runs the gateway. It must return at once.
	// It may be nil.
	Problem func(error)
	// Now returns the time, by which tokens expire and rates are counted. The default is time.Now.
	Now func() time.Time
	// Dial opens connections to WeChat. The default is a net.Dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Relay passes calls on to WeChat. It is safe for concurrent use.
//
// It copies requests and answers itself. httputil.ReverseProxy starts from all headers of a request and takes some away, passes 1xx
// answers and upgrades on, and can neither look into an answer before it is begun nor send a call again. A Relay starts from no header,
// and the only way into a request to WeChat is the allowlist of outboundHeader.
type Relay struct {
	forwarder *wechat.Forwarder
	limits    *limits
	budget    *budget
	waiters   *waiters
	source    Source
	hint      func(client *Client, refused string)
	problem   func(error)
	now       func() time.Time
	chunks    sync.Pool
}

// NewRelay returns a Relay. It does not call WeChat. The error is a *wechat.OptionError.
func NewRelay(o RelayOptions) (*Relay, error) {
	if o.Timeout == 0 {
		o.Timeout = defaultRelayTimeout
	}
	if o.MaxInFlight == 0 {
		o.MaxInFlight = defaultRelayInFlight
	}
	if o.MaxInFlightPerClient <= 0 {
		o.MaxInFlightPerClient = (o.MaxInFlight + 1) / 2
	}
	if o.MaxBufferedBytes <= 0 {
		o.MaxBufferedBytes = defaultMaxBufferedSize
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Hint == nil {
		o.Hint = func(*Client, string) {}
	}
	if o.Problem == nil {
		o.Problem = func(error) {}
	}
	forwarder, err := wechat.NewForwarder(wechat.Options{
		Endpoints: o.Endpoints, CAFile: o.CAFile, Timeout: o.Timeout,
		MaxInFlight: o.MaxInFlight, ConnsPerHost: o.MaxInFlight, Dial: o.Dial,
	})
	if err != nil {
		return nil, err
	}
	return &Relay{
		forwarder: forwarder,
		limits:    newLimits(o.MaxInFlight, o.MaxInFlightPerClient, o.Source, o.Now),
		budget:    newBudget(o.MaxBufferedBytes),
		waiters:   newWaiters(),
		source:    o.Source, hint: o.Hint, problem: o.Problem, now: o.Now,
		chunks: sync.Pool{New: func() any { return new([chunkSize]byte) }},
	}, nil
}

// ReloadCA reads RelayOptions.CAFile again. If the file cannot be used, the certificates stay as they were, and the error says why.
func (r *Relay) ReloadCA() (changed bool, err error) { return r.forwarder.ReloadCA() }

// InFlight returns the number of calls that are being passed on.
func (r *Relay) InFlight() int { return r.limits.inFlight() }

// BufferedBytes returns the size of the bodies that are held.
func (r *Relay) BufferedBytes() int64 { return r.budget.used() }

// relay implements relayer.
func (r *Relay) relay(w http.ResponseWriter, req *http.Request, f forward) {
	x := &exchange{relay: r, w: w, control: http.NewResponseController(w), req: req, forward: f}
	admitted, refused := r.limits.admit(f.call.Client)
	if refused != nil {
		if req.ContentLength != 0 { // net/http reads a part of the body before the next request, and must not wait for long
			_ = x.control.SetReadDeadline(time.Now().Add(Stall))
		}
		x.refuse(OutcomeLimited, *refused)
		return
	}
	defer r.limits.leave(admitted)
	f.call.Admitted = true
	x.run(req.Context())
}
