// SPDX-License-Identifier: Apache-2.0

package wechattest

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"
)

// adminPath is the path below which AdminHandler serves.
const adminPath = "/_standin/"

// Arguments and results of AdminHandler. Its JSON contains durations in nanoseconds.
type (
	appArgs struct {
		AppID  string `json:"appID"`
		Secret string `json:"secret,omitempty"`
	}
	validArgs struct {
		Token string `json:"token"`
		// At is a time by the server's clock. If it is nil, the current time is used.
		At *time.Time `json:"at,omitempty"`
	}
	advanceArgs struct {
		By time.Duration `json:"by"`
	}
	validResult struct {
		Valid bool `json:"valid"`
	}
	countResult struct {
		Count int `json:"count"`
	}
	nowResult struct {
		Now time.Time `json:"now"`
	}
	errorResult struct {
		Error string `json:"error"`
	}
	nothing struct{}
)

// AdminHandler returns a handler that offers the methods of the Server to other processes. Remote is its client. It serves POST
// /_standin/<what> with JSON bodies, where <what> is one of now, advance, tokens, valid, calls, count, inject, clear, force, mint,
// app, secret, tickets, ticket-valid, rival-ticket, signature, code and uploads. An empty body is the same as an empty object. The
// handler returns tokens to every caller, so serve it only on a loopback address of its own and never together with the API.
func (s *Server) AdminHandler() http.Handler {
	mux := http.NewServeMux()
	handle(mux, "now", func(nothing) nowResult { return nowResult{s.Now()} })
	handle(mux, "advance", func(a advanceArgs) nowResult {
		s.Advance(a.By)
		return nowResult{s.Now()}
	})
	handle(mux, "tokens", func(a appArgs) []IssuedToken { return s.Tokens(a.AppID) })
	handle(mux, "valid", func(a validArgs) validResult {
		if a.At == nil {
			return validResult{s.Valid(a.Token)}
		}
		return validResult{s.ValidAt(a.Token, *a.At)}
	})
	handle(mux, "calls", func(f Filter) []Call { return s.Calls(f) })
	handle(mux, "count", func(f Filter) countResult { return countResult{s.Count(f)} })
	handle(mux, "inject", func(f Fault) nothing { s.Inject(f); return nothing{} })
	handle(mux, "clear", func(nothing) nothing { s.ClearFaults(); return nothing{} })
	handle(mux, "force", func(a appArgs) IssuedToken { return s.RivalForceRefresh(a.AppID) })
	handle(mux, "mint", func(a appArgs) IssuedToken { return s.RivalMint(a.AppID) })
	handle(mux, "app", func(a App) nothing { s.SetApp(a); return nothing{} })
	handle(mux, "secret", func(a appArgs) nothing { s.SetSecret(a.AppID, a.Secret); return nothing{} })
	handleTickets(mux, s)
	handleUsers(mux, s)
	return mux
}

// handle registers a function whose arguments are the body of the request.
func handle[A, R any](mux *http.ServeMux, what string, do func(A) R) {
	mux.HandleFunc("POST "+adminPath+what, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		// A browser asks for permission before it sends this type to another origin, so a web page cannot call the handler. It would send
		// a form or plain text without asking.
		if kind := r.Header.Get("Content-Type"); !strings.HasPrefix(kind, "application/json") {
			refuse(w, http.StatusUnsupportedMediaType, "Content-Type must be application/json")
			return
		}
		var args A
		decoder := json.NewDecoder(io.LimitReader(r.Body, maxRequest))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&args); err != nil && !errors.Is(err, io.EOF) {
			refuse(w, http.StatusBadRequest, err.Error())
			return
		}
		_ = json.NewEncoder(w).Encode(do(args)) // fails if the client has gone
	})
}

func refuse(w http.ResponseWriter, status int, why string) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(errorResult{why})
}
