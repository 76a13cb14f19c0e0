// SPDX-License-Identifier: Apache-2.0

package wechattest

import (
	"context"
	"net/http"
)

// codeArgs are the arguments of the part of AdminHandler that is about users.
type codeArgs struct {
	AppID  string   `json:"appID"`
	Kind   CodeKind `json:"kind"`
	OpenID string   `json:"openID,omitempty"`
}

// handleUsers registers what is about users and uploads.
func handleUsers(mux *http.ServeMux, s *Server) {
	handle(mux, "code", func(a codeArgs) IssuedCode { return s.NewCode(a.AppID, a.Kind, a.OpenID) })
	handle(mux, "uploads", func(a appArgs) []Upload { return s.Uploads(a.AppID) })
}

// NewCode calls Server.NewCode.
func (r *Remote) NewCode(ctx context.Context, appID string, kind CodeKind, openID string) (IssuedCode, error) {
	return call[IssuedCode](ctx, r, "code", codeArgs{AppID: appID, Kind: kind, OpenID: openID})
}

// Uploads calls Server.Uploads.
func (r *Remote) Uploads(ctx context.Context, appID string) ([]Upload, error) {
	return call[[]Upload](ctx, r, "uploads", appArgs{AppID: appID})
}
