// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"strings"
	"testing"
	"time"
)

// TestTrimmedFlags checks that invisible characters around the values of flags do no harm, as for the operator.
func TestTrimmedFlags(t *testing.T) {
	o, err := parse([]string{"--addr=127.0.0.1:0\n", "--life= 2m\r\n", "--app", "\ufeffwx0123456789abcdef:0123456789abcdef\n", "--admin-addr=\n", "--verbose=true "}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if o.server.Addr != "127.0.0.1:0" || o.server.Life != 2*time.Minute || o.adminAddr != "" || !o.verbose ||
		len(o.apps) != 1 || o.apps[0].ID != "wx0123456789abcdef" || o.apps[0].Secret != "0123456789abcdef" {
		t.Errorf("got %+v", o)
	}
	for _, arg := range []string{"--app=wx\u200b0123456789abcdef:0123456789abcdef", "--addr=127.0.0.1:\u200b0", "x\u200by"} {
		if _, err := parse([]string{arg}, io.Discard); err == nil || !strings.Contains(err.Error(), "U+200B") && !strings.Contains(err.Error(), `\u200b`) {
			t.Errorf("%q: %v", arg, err)
		}
	}
}
