// SPDX-License-Identifier: Apache-2.0

package wechattest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Remote controls a Server in another process through its AdminHandler. It is safe for concurrent use.
type Remote struct {
	url    string
	client *http.Client
}

// NewRemote returns a Remote for the scheme and host of an AdminHandler. It does not call the handler.
func NewRemote(adminURL string) *Remote {
	return &Remote{
		url: strings.TrimRight(adminURL, "/") + adminPath,
		client: &http.Client{
			Timeout:   30 * time.Second,
			Transport: &http.Transport{IdleConnTimeout: 10 * time.Second}, // no proxy, because the handler is on this machine
		},
	}
}

// call sends the arguments of an operation and returns its result.
func call[R any](ctx context.Context, r *Remote, what string, args any) (result R, err error) {
	body, err := json.Marshal(args)
	if err != nil {
		return result, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url+what, bytes.NewReader(body))
	if err != nil {
		return result, err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := r.client.Do(req)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	if res.StatusCode != http.StatusOK {
		var refused errorResult
		_ = json.NewDecoder(res.Body).Decode(&refused) // the status is enough if this fails
		return result, fmt.Errorf("%s: HTTP %d: %s", what, res.StatusCode, refused.Error)
	}
	return result, json.NewDecoder(res.Body).Decode(&result)
}

// SetApp calls Server.SetApp.
func (r *Remote) SetApp(ctx context.Context, a App) error {
	_, err := call[nothing](ctx, r, "app", a)
	return err
}

// SetSecret calls Server.SetSecret.
func (r *Remote) SetSecret(ctx context.Context, appID, secret string) error {
	_, err := call[nothing](ctx, r, "secret", appArgs{AppID: appID, Secret: secret})
	return err
}

// Tokens calls Server.Tokens.
func (r *Remote) Tokens(ctx context.Context, appID string) ([]IssuedToken, error) {
	return call[[]IssuedToken](ctx, r, "tokens", appArgs{AppID: appID})
}

// Valid calls Server.Valid.
func (r *Remote) Valid(ctx context.Context, token string) (bool, error) {
	result, err := call[validResult](ctx, r, "valid", validArgs{Token: token})
	return result.Valid, err
}

// ValidAt calls Server.ValidAt.
func (r *Remote) ValidAt(ctx context.Context, token string, t time.Time) (bool, error) {
	result, err := call[validResult](ctx, r, "valid", validArgs{Token: token, At: &t})
	return result.Valid, err
}

// Calls calls Server.Calls.
func (r *Remote) Calls(ctx context.Context, f Filter) ([]Call, error) {
	return call[[]Call](ctx, r, "calls", f)
}

// Count calls Server.Count.
func (r *Remote) Count(ctx context.Context, f Filter) (int, error) {
	result, err := call[countResult](ctx, r, "count", f)
	return result.Count, err
}

// Inject calls Server.Inject.
func (r *Remote) Inject(ctx context.Context, f Fault) error {
	_, err := call[nothing](ctx, r, "inject", f)
	return err
}

// ClearFaults calls Server.ClearFaults.
func (r *Remote) ClearFaults(ctx context.Context) error {
	_, err := call[nothing](ctx, r, "clear", nothing{})
	return err
}

// Now calls Server.Now.
func (r *Remote) Now(ctx context.Context) (time.Time, error) {
	result, err := call[nowResult](ctx, r, "now", nothing{})
	return result.Now, err
}

// Advance calls Server.Advance.
func (r *Remote) Advance(ctx context.Context, d time.Duration) error {
	_, err := call[nowResult](ctx, r, "advance", advanceArgs{By: d})
	return err
}

// RivalForceRefresh calls Server.RivalForceRefresh.
func (r *Remote) RivalForceRefresh(ctx context.Context, appID string) (IssuedToken, error) {
	return call[IssuedToken](ctx, r, "force", appArgs{AppID: appID})
}

// RivalMint calls Server.RivalMint.
func (r *Remote) RivalMint(ctx context.Context, appID string) (IssuedToken, error) {
	return call[IssuedToken](ctx, r, "mint", appArgs{AppID: appID})
}
