// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// Forwarder passes requests of other programs on to WeChat's hosts. It reaches these as a Client does, with the same order of the hosts and
// the same transports, but does not look into answers. It is safe for concurrent use.
type Forwarder struct{ client *Client }

// NewForwarder returns a Forwarder with the given options, of which Timeout is how long a host may make no progress. It does not call
// WeChat. The error is an *OptionError.
func NewForwarder(o Options) (*Forwarder, error) {
	c, err := New(o)
	if err != nil {
		return nil, err
	}
	return &Forwarder{client: c}, nil
}

// ReloadCA reads Options.CAFile again, as Client.ReloadCA does.
func (f *Forwarder) ReloadCA() (changed bool, err error) { return f.client.ReloadCA() }

// CloseIdle closes the idle connections.
func (f *Forwarder) CloseIdle() { f.client.network.Load().closeIdle() }

// Outgoing is a request to pass on.
type Outgoing struct {
	Method, Path, Query string
	// Header is sent as it is. Nothing is added but Host and Content-Length, and nothing is removed.
	Header http.Header
	// Length is the length of the body. Body returns the body from its beginning; it is nil if Length is 0. A read from it does not count
	// as time that a host makes no progress.
	Length int64
	Body   func() io.Reader
	// Again says that Body may be called more than once.
	Again bool
	// Once says that no byte of the request may be sent a second time.
	Once bool
	// Pinned says that the request is for the first host alone, because its sender signed the URL.
	Pinned bool
}

// Send sends a request to one host after the other until one answers. After a failure it tries another host only if nothing can have been
// sent, or if the request is a GET that may be sent twice. sends is how often it tried. The body of the answer must be closed; a read from
// it fails if the host makes no progress for Options.Timeout.
//
// The error is a *token.Error as that of a Client. MaybeSent reports whether WeChat may have got the request. Its Message names the host
// and may describe the host's certificate.
func (f *Forwarder) Send(ctx context.Context, p *Outgoing) (res *http.Response, sends int, err error) {
	order := f.client.order()
	if p.Pinned {
		order = []int{0}
	}
	var last *token.Error
	for n, i := range order {
		t := &trip{forwarder: f, out: p, endpoint: i}
		t.observe()
		res, err := t.send(ctx)
		sends += t.sends
		if err == nil {
			if res.StatusCode < http.StatusInternalServerError && !p.Pinned {
				f.client.preferred.Store(int64(i))
			}
			return res, sends, nil
		}
		last = f.client.unreachable(i, err, nil)
		last.MaybeSent = t.sent()
		if ctx.Err() != nil || t.broke.Load() {
			break // the host has nothing to do with it
		}
		if last.MaybeSent && (p.Once || p.Method != http.MethodGet || p.Length > 0 && !p.Again) {
			if !p.Pinned {
				// This request is not sent again, so let the next one start with another host.
				f.client.preferred.CompareAndSwap(int64(i), int64(order[(n+1)%len(order)]))
			}
			break
		}
	}
	return nil, sends, last
}

// trip is the sending of a request to one host.
type trip struct {
	forwarder *Forwarder
	out       *Outgoing
	endpoint  int
	sends     int

	// gate is the newest connection's, of a request that must be sent once.
	gate *gate
	// ready reports that the request has a connection, so that something of it may have been sent.
	ready atomic.Bool
	// broke reports that the body could not be read.
	broke     atomic.Bool
	reused    atomic.Bool
	handshake handshake
	watch     watch
	trace     httptrace.ClientTrace
}

// sent reports whether a part of the request may have been sent. net/http itself sends a request on another connection if it knows that
// nothing of it was sent on the first, or if it is a GET; then the last connection counts.
func (t *trip) sent() bool {
	if t.gate != nil {
		return t.gate.passed()
	}
	return t.ready.Load()
}

// send sends the request. Like Client.send, it tries once more with a ClientHello that fits into one packet if a TLS handshake is not
// answered and nothing can have been sent, and remembers what worked.
func (t *trip) send(ctx context.Context) (*http.Response, error) {
	known := &t.forwarder.client.hellos[t.endpoint]
	first := max(hello(known.Load()), largeHello)
	res, err := t.sendWith(ctx, first)
	if err == nil || !t.handshake.unfinished.Load() || !isTimeout(err) && !isCut(err) {
		return res, err
	}
	known.CompareAndSwap(int32(first), int32(unknownHello))
	if first == smallHello || ctx.Err() != nil || t.sent() {
		return nil, unansweredHandshake{err}
	}
	return t.sendWith(ctx, smallHello)
}

// sendWith sends the request on a connection that begins, or began, with this ClientHello.
func (t *trip) sendWith(ctx context.Context, h hello) (*http.Response, error) {
	t.sends++
	client := t.forwarder.client
	ctx, cancel := context.WithCancelCause(ctx)
	t.ready.Store(false)
	t.handshake.unfinished.Store(false)
	t.handshake.done = func() { client.hellos[t.endpoint].Store(int32(h)) }
	via := client.network.Load().shared
	if t.out.Once {
		via = client.network.Load().fresh
		t.gate = &gate{allowed: func() bool { return true }}
		defer t.gate.shut()
		ctx = context.WithValue(ctx, gateKey{}, t.gate)
	}
	g := t.gate
	t.watch.start(client.timeout, func() {
		if g != nil {
			g.shut()
		}
		cancel(context.DeadlineExceeded)
	})
	res, err := t.roundTrip(ctx, via.of(h))
	t.watch.pause()
	if err != nil {
		err = errors.Join(err, context.Cause(ctx))
		cancel(nil)
		if t.reused.Load() && errors.Is(err, context.DeadlineExceeded) {
			// The other idle connections may be dead for the same reason.
			client.network.Load().closeIdle()
		}
		return nil, err
	}
	if res.StatusCode == http.StatusSwitchingProtocols {
		_ = res.Body.Close() // it is the connection
		res.Body = http.NoBody
	}
	res.Body = &watchedBody{ReadCloser: res.Body, watch: &t.watch, cancel: cancel}
	return res, nil
}

func (t *trip) roundTrip(ctx context.Context, via http.RoundTripper) (res *http.Response, err error) {
	// The value of a panic in net/http would be logged, and may contain the request.
	defer func() {
		if p := recover(); p != nil {
			res, err = nil, errPanic
		}
	}()
	return via.RoundTrip(t.request(httptrace.WithClientTrace(ctx, &t.trace)))
}

// observe makes the trace of the requests. A dial that was given up may still use it while the next request is sent.
func (t *trip) observe() {
	t.trace = httptrace.ClientTrace{
		GetConn:           func(string) { t.ready.Store(false) },
		GotConn:           t.gotConn,
		TLSHandshakeStart: t.handshake.started,
		TLSHandshakeDone:  t.handshake.ended,
	}
}

func (t *trip) gotConn(info httptrace.GotConnInfo) {
	if t.gate != nil {
		t.gate.pass()
	}
	t.ready.Store(true)
	t.reused.Store(info.Reused)
	t.handshake.gotConn(info)
}

// request returns the request to send. Its URL and Host are those of the endpoint, whatever Outgoing says.
func (t *trip) request(ctx context.Context) *http.Request {
	p, endpoint := t.out, t.forwarder.client.endpoints[t.endpoint]
	req := (&http.Request{
		Method: p.Method,
		URL:    &url.URL{Scheme: endpoint.Scheme, Host: endpoint.Host, Path: p.Path, RawQuery: p.Query},
		Header: p.Header,
		Host:   endpoint.Host,
	}).WithContext(ctx)
	if p.Length == 0 {
		return req
	}
	req.ContentLength = p.Length
	body := func() (io.ReadCloser, error) {
		return &pausing{Reader: p.Body(), watch: &t.watch, broke: &t.broke}, nil
	}
	if p.Again && !p.Once {
		req.GetBody = body
	}
	req.Body, _ = body()
	return req
}

// watch ends an attempt whose host makes no progress.
type watch struct {
	timer *time.Timer
	limit time.Duration
}

func (w *watch) start(limit time.Duration, end func()) {
	w.timer, w.limit = time.AfterFunc(limit, end), limit
}

func (w *watch) pause()  { w.timer.Stop() }
func (w *watch) resume() { w.timer.Reset(w.limit) }

// pausing is the body of a request. While it is read, the host has nothing to answer for. It is not closed, because it may be read again
// for another host.
type pausing struct {
	io.Reader
	watch *watch
	broke *atomic.Bool
}

func (b *pausing) Read(p []byte) (int, error) {
	b.watch.pause()
	defer b.watch.resume()
	n, err := b.Reader.Read(p)
	if err != nil && err != io.EOF {
		b.broke.Store(true)
	}
	return n, err
}

func (b *pausing) Close() error { return nil }

// watchedBody is the body of an answer. The watch runs while it is read.
type watchedBody struct {
	io.ReadCloser
	watch  *watch
	cancel context.CancelCauseFunc
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.watch.resume()
	n, err := b.ReadCloser.Read(p)
	b.watch.pause()
	return n, err
}

func (b *watchedBody) Close() error {
	b.watch.pause()
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}
