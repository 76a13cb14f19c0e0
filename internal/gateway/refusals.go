// SPDX-License-Identifier: Apache-2.0

package gateway

// Answers of a Relay in place of WeChat's.
var (
	refusalLoop = refusal{codeBusy, "loop",
		"the call went through a gateway twice. Check that the gateway resolves WeChat's names to WeChat, not to a gateway."}
	refusalRate = refusal{codeTooMany, "rate",
		"this client calls more often than its WeChatAppClient allows. Call less often, or raise spec.rate."}
	refusalClientInFlight = refusal{codeTooMany, "client_in_flight",
		"this client has too many calls in flight. Make fewer at the same time."}
	refusalInFlight = refusal{codeTooMany, "in_flight",
		"too many calls are in flight. Try again soon, or run more replicas of the gateway."}
	refusalBuffer = refusal{codeTooMany, "buffer",
		"there is no room for a body without a Content-Length. Send a Content-Length, or try again soon."}
	refusalBodySlow = refusal{codeBusy, "body_slow",
		"the body of the request did not arrive in time. Send the call again."}
	refusalUnreachable = refusal{codeBusy, "unreachable",
		"WeChat was not reached. Try again soon. If this lasts, whoever runs the gateway should look at its log and its network."}
	refusalTimeout = refusal{codeBusy, "timeout",
		"WeChat did not answer in time. Try again soon."}
	refusalUnanswered = refusal{codeBusy, reasonUnanswered,
		"WeChat may have carried the call out, and did not answer. Find out whether it did before you make the call again."}
	refusalBroken = refusal{codeBusy, "broken",
		"WeChat's answer broke off."} // for the audit log alone, because the answer has begun
	refusalRedirect = refusal{codeBusy, "redirect",
		"the answer is a redirect, which WeChat does not send. Whoever runs the gateway should look for what answers in WeChat's place."}
	refusalProtocol = refusal{codeBusy, "protocol",
		"the answer is none of WeChat's. Whoever runs the gateway should look for what answers in WeChat's place."}
	refusalEcho = refusal{codeBusy, "echo",
		"the answer holds the access token or the AppSecret, which WeChat does not send back. " +
			"Whoever runs the gateway should look for what answers in WeChat's place."}
	refusalEnded = refusal{codeTokenInvalid, "ended",
		"the WeChatAppClient was suspended, deleted or changed, or its key was revoked, while the body of the request was on its way."}
	refusalStarting = refusal{codeBusy, "starting",
		"the gateway has just started and has not read its objects from the API server yet. Try again soon."}
	refusalGone = refusal{code: 0, reason: "gone"} // never sent
)
