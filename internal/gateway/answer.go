// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// chunkSize is how much of an answer is read at once. It is more than an access token has, so that one in two parts is found.
const chunkSize = 16 << 10

// read reads more of WeChat's answer behind what is in the chunk.
func (x *exchange) read(res *http.Response) {
	begun := time.Now()
	n, err := res.Body.Read(x.chunk[x.filled:])
	x.call.Upstream += time.Since(begun)
	x.filled += n
	x.ended = err
}

// answer passes an answer on, whose beginning has been read.
func (x *exchange) answer(res *http.Response) {
	x.copyHeader(x.w.Header(), res.Header)
	x.endUnread()
	x.call.Outcome, x.call.Status = OutcomeRelayed, res.StatusCode
	x.w.WriteHeader(res.StatusCode)
	for {
		x.pass(res)
		if x.ended != nil {
			break
		}
		x.read(res)
		if x.echoes(x.chunk[:x.filled]) {
			x.broken(refusalEcho)
		}
	}
	if x.ended != io.EOF { //nolint:errorlint // a reader returns it as it is
		if x.req.Context().Err() != nil {
			x.gone()
		}
		x.broken(refusalBroken)
	}
	_ = x.control.Flush()
}

// pass writes what has been read, but for an end that may be the beginning of the secret. It flushes what it wrote if more is to come.
func (x *exchange) pass(res *http.Response) {
	out := x.filled
	if x.ended == nil {
		out -= x.secretPrefix(x.chunk[:x.filled])
	}
	if out > 0 {
		begun := time.Now()
		n, err := x.w.Write(x.chunk[:out])
		x.call.Received += int64(n)
		if err == nil && x.ended == nil && x.call.Received != res.ContentLength {
			err = x.control.Flush()
		}
		x.call.Caller += time.Since(begun)
		if err != nil {
			x.gone()
		}
	}
	x.filled = copy(x.chunk[:], x.chunk[out:x.filled])
}

// endUnread closes the connection behind the answer if a part of the body may be left on it, because net/http would take that for the next
// request. It cannot tell: it does not look at the body of a call whose answer may begin before the body has ended.
func (x *exchange) endUnread() {
	if x.body.unread() {
		x.w.Header().Set("Connection", "close")
	}
}

// broken ends an answer that has begun. The caller sees that it is not whole. It does not return.
func (x *exchange) broken(f refusal) {
	x.call.Outcome, x.call.Reason, x.call.Errcode = OutcomeUnavailable, f.reason, f.code
	panic(http.ErrAbortHandler)
}

// secret returns what the call was sent with and must not come back: the token or the AppSecret; empty for none. WeChat sends none back,
// but an error page of a proxy may quote the URL.
func (x *exchange) secret() string {
	if x.token.IsZero() {
		return x.hidden.Reveal()
	}
	return x.token.Reveal()
}

// echoes reports whether a part of an answer holds the secret.
func (x *exchange) echoes(part []byte) bool {
	secret := x.secret()
	return secret != "" && bytes.Contains(part, []byte(secret))
}

// holdsSecret reports whether a header holds the secret, as it is or escaped.
func (x *exchange) holdsSecret(value string) bool {
	secret := x.secret()
	return secret != "" && (strings.Contains(value, secret) || strings.Contains(value, url.QueryEscape(secret)))
}

// secretPrefix returns the length of the longest end of a part that is a beginning of the secret.
func (x *exchange) secretPrefix(part []byte) int {
	secret := x.secret()
	for n := min(len(part), len(secret)-1); n > 0; n-- {
		if part[len(part)-n] == secret[0] && string(part[len(part)-n:]) == secret[:n] {
			return n
		}
	}
	return 0
}
