// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"net/http"

	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// forward is a call that the policy allows, with what is sent to WeChat of the request target.
type forward struct {
	call *Call
	path string
	// query returns the query to send with this token of the account. It ignores the token if the call carries none.
	query func(token.Value) string
	// token is the account's token; zero if the call carries none, as a login does. An answer that refuses it is a reason to repeat the
	// call once with a newer one.
	token token.Value
	// hidden is what the query carries instead of a token and what must not come back either, as the AppSecret of a login; zero for none.
	hidden token.Value
	// still returns the account's token if a policy allows the call as well, and the refusal if not. It is asked after the body of the
	// caller was waited for, in which time the key may have been revoked. It is nil for calls whose bodies are not waited for.
	still func(*Policy) (token.Value, refusal, bool)
	// once says that the call must not be sent a second time once a byte of it may have been sent, because what it carries works once.
	once bool
}

// relayer passes calls on. It answers the caller in any case, and completes f.call but for its Duration.
type relayer interface {
	relay(w http.ResponseWriter, r *http.Request, f forward)
}
