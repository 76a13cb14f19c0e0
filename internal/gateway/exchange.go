// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat"
)

// statusGone is the status of a call whose caller went away, as nginx logs it.
const statusGone = 499

// exchange is a call that is being passed on. Only the goroutine of its request uses it.
type exchange struct {
	forward

	relay   *Relay
	w       http.ResponseWriter
	control *http.ResponseController
	req     *http.Request
	header  http.Header
	body    body

	// chunk begins with the filled bytes that were read of WeChat's answer and not written yet. ended is what ended the answer, io.EOF for
	// a whole one.
	chunk  *[chunkSize]byte
	filled int
	ended  error
}

// run passes the call on, once more if WeChat refused its token and the store gets another one.
func (x *exchange) run(ctx context.Context) {
	x.chunk, _ = x.relay.chunks.Get().(*[chunkSize]byte)
	x.body.from(x.req, x.control, x.relay.budget)
	defer x.release()
	x.header = outboundHeader(x.req.Header)
	if refused := x.body.open(ctx); refused != nil {
		x.refuseBody(*refused)
		return
	}
	if f, ok := x.allowedStill(); !ok {
		x.refuse(f.outcome(), f)
		return
	}
	res, ok := x.send(ctx, x.token)
	if !ok {
		return
	}
	if next := x.newer(ctx, res); !next.IsZero() {
		_ = res.Body.Close()
		x.token = next
		if res, ok = x.send(ctx, next); !ok {
			return
		}
	}
	defer func() { _ = res.Body.Close() }()
	x.answer(res)
}

// allowedStill reports whether the call is still allowed after its body was held, and takes the account's present token. So nobody can keep
// calls at hand for the time after a revocation by not ending their bodies.
func (x *exchange) allowedStill() (refusal, bool) {
	if !x.body.isHeld || x.still == nil {
		return refusal{}, true
	}
	policy, _ := x.relay.source.Policy()
	present, f, allowed := x.still(policy)
	if allowed {
		x.token = present
	}
	return f, allowed
}

// release gives back what the call used. It runs while a panic ends a call that broke off, too.
func (x *exchange) release() {
	x.body.close()
	x.call.Sent, x.call.Caller = x.body.sent(), x.call.Caller+x.body.waited()
	x.relay.chunks.Put(x.chunk)
}

// send sends the call with a token and reads the beginning of the answer. If there is no answer that may be passed on, it answers the
// caller itself and returns false.
func (x *exchange) send(ctx context.Context, with token.Value) (*http.Response, bool) {
	before := x.body.waited()
	begun := time.Now()
	res, sends, err := x.relay.forwarder.Send(ctx, &wechat.Outgoing{
		Method: x.req.Method, Path: x.path, Query: x.query(with), Header: x.header,
		Length: x.body.length, Body: x.body.reader, Again: x.body.again(),
		Once: x.once, Pinned: isSigned(x.header),
	})
	x.call.Attempts += sends
	if err == nil {
		err = x.peek(res)
	}
	x.call.Upstream += max(0, time.Since(begun)-(x.body.waited()-before))
	if err == nil && x.acceptable(res) {
		return res, true
	}
	if res != nil {
		_ = res.Body.Close()
	}
	if err != nil {
		x.fail(err)
	}
	return nil, false
}

// acceptable reports whether an answer may be passed on. If not, it answers the caller itself.
func (x *exchange) acceptable(res *http.Response) bool {
	switch {
	case res.StatusCode < http.StatusOK:
		x.refuse(OutcomeUnavailable, refusalProtocol)
	case res.StatusCode < http.StatusMultipleChoices || res.StatusCode >= http.StatusBadRequest:
		if len(res.Header[requestIDHeader]) > 0 {
			x.refuse(OutcomeUnavailable, refusalLoop)
			return false
		}
		if x.echoes(x.chunk[:x.filled]) {
			x.refuse(OutcomeUnavailable, refusalEcho)
			return false
		}
		return true
	default:
		x.refuse(OutcomeUnavailable, refusalRedirect)
	}
	return false
}

// fail answers a call that has no answer of WeChat's.
func (x *exchange) fail(err error) {
	if bodyErr := x.body.failure(); bodyErr != nil {
		x.refuseBody(bodyRefusal(bodyErr))
		return
	}
	if x.req.Context().Err() != nil {
		x.gone()
	}
	x.relay.problem(err)
	sending, ok := errors.AsType[*token.Error](err)
	sent := !ok || sending.MaybeSent // without that, the answer had begun
	f := refusalUnreachable
	switch {
	case sent && (x.once || x.req.Method != http.MethodGet):
		f = refusalUnanswered
	case errors.Is(err, context.DeadlineExceeded):
		f = refusalTimeout
	}
	x.refuse(OutcomeUnavailable, f)
}

// refuse answers with a refusal.
func (x *exchange) refuse(outcome Outcome, f refusal) {
	x.call.refuse(outcome, f)
	x.call.Status = f.status()
	x.endUnread()
	f.write(x.w, x.call.ID)
	_ = x.control.Flush()
}

// refuseBody answers a call whose body could not be read or held.
func (x *exchange) refuseBody(f refusal) {
	if f == refusalGone {
		x.gone()
	}
	outcome := OutcomeLimited
	if f == refusalBodySlow {
		outcome = OutcomeUnavailable
		x.w.Header().Set("Connection", "close")
	}
	x.refuse(outcome, f)
}

// gone ends a call whose caller went away. It does not return.
func (x *exchange) gone() {
	x.call.Outcome, x.call.Reason, x.call.Status, x.call.Errcode = OutcomeGone, refusalGone.reason, statusGone, 0
	panic(http.ErrAbortHandler)
}

// outboundHeader returns the headers of a request that WeChat may see. It starts from none, so that nothing which a caller sends can change
// how the request is read on the way, and nothing that he names in Connection can take one of them away.
func outboundHeader(in http.Header) http.Header {
	out := make(http.Header, 4)
	out["User-Agent"] = noUserAgent[:]
	for key, values := range in {
		switch key {
		case "Content-Type", "Accept", "User-Agent":
		default:
			if !strings.HasPrefix(key, signedPrefix) {
				continue
			}
		}
		out[key] = values[:1:1]
	}
	return out
}

// noUserAgent keeps net/http from adding one of its own.
var noUserAgent = [1]string{""}

// signedPrefix begins the headers with which a caller signs its call, or encrypts it. The signature covers the URL.
const signedPrefix = "Wechatmp-"

func isSigned(header http.Header) bool {
	for key := range header {
		if strings.HasPrefix(key, signedPrefix) {
			return true
		}
	}
	return false
}

// Headers of an answer that are about the connection to WeChat, or that could lead a caller past the gateway.
func isStripped(key string) bool {
	switch key {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer",
		"Transfer-Encoding", "Upgrade", "Set-Cookie", "Set-Cookie2", "Alt-Svc", "Location", "Content-Location", "Refresh":
		return true
	}
	return false
}

// copyHeader copies the headers of an answer. A header with the secret in it is left out.
func (x *exchange) copyHeader(out, in http.Header) {
	var named []string
	for _, value := range in["Connection"] {
		for name := range strings.SplitSeq(value, ",") {
			named = append(named, http.CanonicalHeaderKey(strings.TrimSpace(name)))
		}
	}
	for key, values := range in {
		if isStripped(key) || key != "Content-Length" && slices.Contains(named, key) || slices.ContainsFunc(values, x.holdsSecret) {
			continue
		}
		out[key] = values
	}
}
