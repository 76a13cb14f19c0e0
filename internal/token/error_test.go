// SPDX-License-Identifier: Apache-2.0

package token

import (
	"context"
	"errors"
	"testing"
)

func TestError(t *testing.T) {
	for want, e := range map[string]*Error{
		"Unreachable: No answer.":                       {Reason: "Unreachable", Message: "No answer."},
		"SystemBusy (errcode -1): WeChat is busy.":      {Code: -1, Reason: "SystemBusy", Message: "WeChat is busy."},
		"RateLimited (errcode 45011): Wait. rid: ab-12": {Code: 45011, Reason: "RateLimited", Message: "Wait.", RequestID: "ab-12"},
	} {
		if got := e.Error(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
		if e.Unwrap() != nil {
			t.Errorf("%s: the cause is %v", want, e.Unwrap())
		}
	}
	if err := error(&Error{Cause: context.Canceled}); !errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("errors.Is does not find the cause of %v", err)
	}
}
