// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"net/netip"
	"strconv"
	"time"
)

const (
	// maxDeniedPath bounds the path of a call that was denied, which a caller may have made up.
	maxDeniedPath = 128
	// maxMethod bounds the method.
	maxMethod = 16
	// otherName stands for a query key, a path or an errcode that is in no table.
	otherName = "other"
)

// appendCall appends the line about a call. Every text in it is from a table, a name that the API server has validated, or of a narrow
// alphabet; anything else becomes a question mark, so that nobody can break out of a line.
func appendCall(b []byte, c *Call, suppressed int) []byte {
	b = appendTime(b, c.Started)
	b = appendText(b, "id", c.ID)
	b = appendPeer(b, c.Peer)
	if c.Client != nil {
		b = append(b, `,"client":"`...)
		b = appendSafe(b, c.Client.Name.Namespace)
		b = append(b, '/')
		b = appendSafe(b, c.Client.Name.Name)
		b = append(b, '"')
	}
	b = appendText(b, "by", string(c.By))
	b = appendText(b, "serviceAccount", c.ServiceAccount)
	b = appendText(b, "method", c.Method[:min(len(c.Method), maxMethod)])
	path := c.Target.Path
	if c.Outcome == OutcomeDenied {
		path = path[:min(len(path), maxDeniedPath)]
	}
	b = appendText(b, "path", path)
	b = appendKeys(b, c.Target)
	b = appendText(b, "outcome", string(c.Outcome))
	b = appendText(b, "reason", c.Reason)
	b = appendNumber(b, "errcode", int64(c.Errcode))
	b = appendNumber(b, "status", int64(c.Status))
	b = appendNumber(b, "attempts", int64(c.Attempts))
	b = appendNumber(b, "sent", c.Sent)
	b = appendNumber(b, "received", c.Received)
	b = appendSeconds(b, "duration", c.Duration)
	b = appendSeconds(b, "upstream", c.Upstream)
	if suppressed > 0 {
		b = appendNumber(b, "suppressed", int64(suppressed))
	}
	return append(b, '}', '\n')
}

// appendSuppressed appends the line about denials that had none.
func appendSuppressed(b []byte, now time.Time, peer netip.Addr, suppressed int) []byte {
	b = appendTime(b, now)
	b = appendPeer(b, peer)
	b = appendNumber(b, "suppressed", int64(suppressed))
	return append(b, '}', '\n')
}

// appendTime begins a line with a time in milliseconds. Package time formats RFC 3339 without them several times as fast as any layout.
func appendTime(b []byte, t time.Time) []byte {
	b = append(b, `{"time":"`...)
	b = t.UTC().AppendFormat(b, time.RFC3339)
	ms := t.Nanosecond() / int(time.Millisecond)
	return append(b[:len(b)-1], '.', byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10), 'Z', '"')
}

func appendPeer(b []byte, peer netip.Addr) []byte {
	if !peer.IsValid() {
		return b
	}
	b = append(b, `,"peer":"`...)
	b = peer.WithZone("").AppendTo(b)
	return append(b, '"')
}

// appendKeys appends the names of the query's parameters that are in the table, each once. All others are "other".
func appendKeys(b []byte, t Target) []byte {
	if len(t.pairs) == 0 {
		return b
	}
	b = append(b, `,"query":[`...)
	var seen uint64
	for i := range t.pairs {
		n := keyNumber(t.pairs[i].key)
		if seen&(1<<n) != 0 {
			continue
		}
		if seen != 0 {
			b = append(b, ',')
		}
		seen |= 1 << n
		b = append(b, '"')
		b = append(b, queryKeys[n]...)
		b = append(b, '"')
	}
	return append(b, ']')
}

// queryKeys are the parameters that WeChat documents for its common paths, at most 64. The first stands for all others.
var queryKeys = [...]string{
	otherName, accessTokenKey, "appid", "secret", "grant_type", "js_code", "code", "openid", "lang", "type", "media_id", "next_openid",
	"refresh_token", "scope", "unionid", "id", "action", "begin_date", "end_date", "ticket", "signature", "sig_method", "kf_account",
	"plugin_id", "env", "cmd", "img_url", "offset", "count", "limit", "url", "description", "force_refresh", "userid", "cursor",
}

func keyNumber(key string) int {
	for n, known := range queryKeys {
		if known == key {
			return n
		}
	}
	return 0
}

// appendText appends a member, unless its value is empty.
func appendText(b []byte, key, value string) []byte {
	if value == "" {
		return b
	}
	b = append(b, ',', '"')
	b = append(b, key...)
	b = append(b, '"', ':', '"')
	b = appendSafe(b, value)
	return append(b, '"')
}

// appendSafe appends a text in which nothing needs an escape.
func appendSafe(b []byte, value string) []byte {
	for i := range len(value) {
		c := value[i]
		if c < ' ' || c > '~' || c == '"' || c == '\\' {
			c = '?'
		}
		b = append(b, c)
	}
	return b
}

func appendNumber(b []byte, key string, value int64) []byte {
	b = append(b, ',', '"')
	b = append(b, key...)
	b = append(b, '"', ':')
	return strconv.AppendInt(b, value, 10)
}

// appendSeconds appends a duration in seconds, to the microsecond.
func appendSeconds(b []byte, key string, d time.Duration) []byte {
	b = append(b, ',', '"')
	b = append(b, key...)
	b = append(b, '"', ':')
	return strconv.AppendFloat(b, d.Seconds(), 'f', 6, 64)
}
