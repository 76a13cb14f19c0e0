// SPDX-License-Identifier: Apache-2.0

package wechattest

import "time"

// platform is the state of WeChat: its accounts, the tokens that it issued and its clock. It knows nothing of HTTP connections and
// is not safe for concurrent use; a Server guards it with its mutex.
type platform struct {
	options Options
	offset  time.Duration
	apps    map[string]*account
	ledger  ledger
	tickets map[string]*IssuedTicket // by value
	users   users
	uploads []Upload
}

func newPlatform(o Options) platform {
	return platform{
		options: o,
		apps:    make(map[string]*account),
		ledger:  newLedger(),
		tickets: make(map[string]*IssuedTicket),
		users:   newUsers(),
	}
}

// now returns the time of the platform's clock. Round(0) strips the monotonic reading, so that times are compared by the wall clock and
// stay equal when they are sent as JSON.
func (p *platform) now() time.Time { return p.options.Now().Round(0).UTC().Add(p.offset) }
