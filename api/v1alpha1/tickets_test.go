// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"fmt"
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

func TestTickets(t *testing.T) {
	const taken, twice, key = "is one that the token, its expiry or the appid is written under", "under the same key", "must be a key of a Secret"
	const first = "spec.tickets[0].key"
	try(t, []specCase{
		{name: "none", spec: `tickets: []`},
		{name: "one", spec: `tickets: [{type: jsapi}]`},
		{name: "all", spec: `tickets: [{type: jsapi}, {type: wx_card, key: card}, {type: sdk}]`},
		{name: "longest key", spec: fmt.Sprintf("tickets: [{type: jsapi, key: %q}]", strings.Repeat("k", 242))},
		{name: "key too long", spec: fmt.Sprintf("tickets: [{type: jsapi, key: %q}]", strings.Repeat("k", 243)), field: first, advice: "may not be more than 242"},
		{name: "key empty", spec: `tickets: [{type: jsapi, key: ""}]`, field: first, advice: key},
		{name: "key with a slash", spec: `tickets: [{type: jsapi, key: a/b}]`, field: first, advice: key},
		{name: "key is two dots", spec: `tickets: [{type: jsapi, key: ..}]`, field: first, advice: key},
		{name: "no type", spec: `tickets: [{key: jsapi_ticket}]`, field: "spec.tickets[0].type", advice: "Required value"},
		{name: "unknown type", spec: `tickets: [{type: JSAPI}]`, field: "spec.tickets[0].type", advice: `supported values: "jsapi", "wx_card", "sdk"`},
		{name: "one type twice", spec: `tickets: [{type: jsapi}, {type: jsapi, key: b}]`, field: "spec.tickets[1]", advice: "Duplicate value"},
		{name: "the key of the token", spec: `tickets: [{type: jsapi, key: access_token}]`, field: "spec.tickets", advice: taken},
		{name: "the key of the token by default", spec: `{tickets: [{type: jsapi}], target: {accessTokenKey: jsapi_ticket}}`, field: "spec.tickets", advice: taken},
		{name: "the expiry's key is the token's", spec: `{tickets: [{type: jsapi}], target: {accessTokenKey: jsapi_ticket_expires_at}}`, field: "spec.tickets", advice: taken},
		{name: "expires_at", spec: `tickets: [{type: sdk, key: expires_at}]`, field: "spec.tickets", advice: taken},
		{name: "app_id", spec: `tickets: [{type: sdk, key: app_id}]`, field: "spec.tickets", advice: taken},
		{name: "one key twice", spec: `tickets: [{type: jsapi, key: t}, {type: sdk, key: t}]`, field: "spec.tickets", advice: twice},
		{name: "the other's default", spec: `tickets: [{type: jsapi}, {type: sdk, key: jsapi_ticket}]`, field: "spec.tickets", advice: twice},
		{name: "the other's expiry", spec: `tickets: [{type: jsapi}, {type: sdk, key: jsapi_ticket_expires_at}]`, field: "spec.tickets", advice: twice},
	})
}

// Pods read a ticket by the name of its file. A type that was dropped may come back under another key.
func TestTicketKeyIsImmutable(t *testing.T) {
	const advice = "the key of a ticket is immutable"
	for name, test := range map[string]struct {
		before, after []v1alpha1.TicketSpec
		refused       bool
	}{
		"another key":                 {[]v1alpha1.TicketSpec{{Type: "jsapi", Key: "a"}}, []v1alpha1.TicketSpec{{Type: "jsapi", Key: "b"}}, true},
		"from the default":            {[]v1alpha1.TicketSpec{{Type: "jsapi"}}, []v1alpha1.TicketSpec{{Type: "jsapi", Key: "b"}}, true},
		"to the default":              {[]v1alpha1.TicketSpec{{Type: "jsapi", Key: "b"}}, []v1alpha1.TicketSpec{{Type: "jsapi"}}, true},
		"the default in other words":  {[]v1alpha1.TicketSpec{{Type: "jsapi"}}, []v1alpha1.TicketSpec{{Type: "jsapi", Key: "jsapi_ticket"}}, false},
		"another type beside it":      {[]v1alpha1.TicketSpec{{Type: "jsapi"}}, []v1alpha1.TicketSpec{{Type: "sdk"}, {Type: "jsapi"}}, false},
		"dropped":                     {[]v1alpha1.TicketSpec{{Type: "jsapi"}}, nil, false},
		"another type under its name": {[]v1alpha1.TicketSpec{{Type: "jsapi", Key: "t"}}, []v1alpha1.TicketSpec{{Type: "sdk", Key: "t"}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := decode(t, create(t, newNamespace(t), "shop", ""))
			r.Spec.Tickets = test.before
			if err := api.Update(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			r.Spec.Tickets = test.after
			err := api.Update(t.Context(), r, client.DryRunAll)
			if test.refused {
				refused(t, err, "spec.tickets[0].key", advice)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}
