// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"testing"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

func TestTicketOf(t *testing.T) {
	for message, want := range map[string]v1alpha1.TicketType{
		"": "",
		`Secret "shop" holds a token that is valid until 2026-11-24T22:30:33Z`: "",
		"ticket jsapi: WeChat is busy. The operator tries again by itself.":    v1alpha1.TicketJSAPI,
		"ticket wx_card: it was not issued yet":                                v1alpha1.TicketWXCard,
		"ticket sdk: ":                                                         v1alpha1.TicketSDK,
		"ticket other: no such one":                                            "",
		"no ticket jsapi: of yours":                                            "",
		"ticket jsapi":                                                         "",
	} {
		if got := v1alpha1.TicketOf(message); got != want {
			t.Errorf("%q is about %q, want %q", message, got, want)
		}
	}
}
