// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"context"
	"errors"
	"time"
)

// Client calls WeChat. It is safe for concurrent use.
type Client struct {
	clock *clock
}

// New makes a Client. A wrong option gives an *OptionError.
func New(o Options) (*Client, error) {
	o, _, err := o.complete()
	if err != nil {
		return nil, err
	}
	return &Client{clock: newClock(o.Wall)}, nil
}

// StableToken asks for the token of an account in Stable mode.
func (c *Client) StableToken(context.Context, Credentials, bool) (Token, error) {
	return Token{}, errors.ErrUnsupported
}

// LegacyToken mints.
func (c *Client) LegacyToken(context.Context, Credentials, time.Time) (Token, error) {
	return Token{}, errors.ErrUnsupported
}

// ProbeToken asks whether WeChat accepts a token.
func (c *Client) ProbeToken(context.Context, Secret) error { return errors.ErrUnsupported }

// Now is WeChat's clock.
func (c *Client) Now() time.Time { return c.clock.now() }

// ClockSynced reports whether an answer's Date has been seen.
func (c *Client) ClockSynced() bool { return c.clock.synced() }
