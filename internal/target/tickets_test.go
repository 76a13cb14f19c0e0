// SPDX-License-Identifier: Apache-2.0

package target

import (
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

const (
	jsapi = v1alpha1.TicketJSAPI
	card  = v1alpha1.TicketWXCard
)

var ticketTime = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// heldTicket is a ticket with this value under this key.
func heldTicket(kind v1alpha1.TicketType, key, value string) Ticket {
	return Ticket{
		Type: kind, Key: key, Fingerprint: token.NewValue(value).Fingerprint(), FirstAt: ticketTime, ExpiresAt: ticketTime.Add(2 * time.Hour),
	}
}

func statusOf(tickets ...Ticket) []v1alpha1.TicketStatus {
	var out []v1alpha1.TicketStatus
	for _, t := range tickets {
		out = append(out, v1alpha1.TicketStatus{
			Type: t.Type, IssueTime: metav1.NewTime(t.FirstAt), ExpirationTime: metav1.NewTime(t.ExpiresAt), Fingerprint: t.Fingerprint,
		})
	}
	return out
}

func TestHeldTickets(t *testing.T) {
	specs := []v1alpha1.TicketSpec{{Type: card}, {Type: jsapi, Key: "js"}}
	one, other := heldTicket(jsapi, "js", "a"), heldTicket(card, "wx_card_ticket", "b")
	applied := func(keys map[v1alpha1.TicketType]string) Record { return Record{Applied: Applied{Tickets: keys}} }
	both := applied(map[v1alpha1.TicketType]string{jsapi: "js", card: "wx_card_ticket"})
	for name, test := range map[string]struct {
		k      Knowledge
		status []v1alpha1.TicketStatus
		record Record
		want   []Ticket
	}{
		"nothing is known":               {Knowledge{}, nil, both, nil},
		"by the status":                  {Knowledge{}, statusOf(one, other), both, []Ticket{other, one}},
		"by the status, under other key": {Knowledge{}, statusOf(one), applied(map[v1alpha1.TicketType]string{jsapi: "old"}), nil},
		"by the status, never applied":   {Knowledge{}, statusOf(one), Record{}, nil},
		"found in the data":              {Knowledge{Tickets: []Ticket{one}}, nil, Record{}, []Ticket{one}},
		"not found in the data":          {Knowledge{Tickets: []Ticket{}}, statusOf(one, other), both, nil},
		"of a type that was dropped":     {Knowledge{Tickets: []Ticket{heldTicket("sdk", "sdk_ticket", "c"), one}}, nil, Record{}, []Ticket{one}},
		"under the key of before":        {Knowledge{Tickets: []Ticket{heldTicket(jsapi, "old", "a")}}, nil, Record{}, nil},
	} {
		if got := test.k.HeldTickets(specs, test.status, test.record); !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
	}
}

func TestJudgedTickets(t *testing.T) {
	specs := []v1alpha1.TicketSpec{{Type: jsapi}}
	known := heldTicket(jsapi, "jsapi_ticket", "a")
	later := known
	later.ExpiresAt = known.ExpiresAt.Add(time.Hour)
	data := func(value, expiresAt string) Snapshot {
		return Snapshot{Meta: &metav1.PartialObjectMetadata{}, data: map[string][]byte{
			"jsapi_ticket": []byte(value), "jsapi_ticket_expires_at": []byte(expiresAt),
		}}
	}
	expiry := FormatTime(known.ExpiresAt)
	for name, test := range map[string]struct {
		k      Knowledge
		status []v1alpha1.TicketStatus
		data   Snapshot
		want   []Ticket
	}{
		"as this process wrote it":    {Knowledge{Tickets: []Ticket{known}}, nil, data("a", expiry), []Ticket{known}},
		"as the status says":          {Knowledge{}, statusOf(known), data("a", expiry), []Ticket{known}},
		"as another process wrote it": {Knowledge{Tickets: []Ticket{known}}, statusOf(later), data("a", FormatTime(later.ExpiresAt)), []Ticket{later}},
		"another value":               {Knowledge{Tickets: []Ticket{known}}, statusOf(known), data("b", expiry), []Ticket{}},
		"another expiry":              {Knowledge{Tickets: []Ticket{known}}, statusOf(known), data("a", "2099-01-01T00:00:00Z"), []Ticket{}},
		"nothing":                     {Knowledge{Tickets: []Ticket{known}}, statusOf(known), Snapshot{}, []Ticket{}},
		"known to nobody":             {Knowledge{}, nil, data("a", expiry), []Ticket{}},
	} {
		if got := test.k.JudgedTickets(test.data, specs, test.status).Tickets; !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
	}
}

// What the spec drops goes, and whatever the list of what was applied says, what the spec asks for stays.
func TestDroppedTickets(t *testing.T) {
	spec := v1alpha1.WeChatAppTokenSpec{
		Target: v1alpha1.TargetSpec{AccessTokenKey: "access_token"}, Tickets: []v1alpha1.TicketSpec{{Type: jsapi, Key: "js"}},
	}
	for name, test := range map[string]struct {
		previous map[v1alpha1.TicketType]string
		held     []v1alpha1.TicketType
		applied  map[v1alpha1.TicketType]string
		dropped  []string
	}{
		"the first one":        {nil, []v1alpha1.TicketType{jsapi}, map[v1alpha1.TicketType]string{jsapi: "js"}, nil},
		"not fetched yet":      {nil, nil, nil, nil},
		"lost, but asked for":  {map[v1alpha1.TicketType]string{jsapi: "js"}, nil, map[v1alpha1.TicketType]string{jsapi: "js"}, nil},
		"a type dropped":       {map[v1alpha1.TicketType]string{card: "c"}, nil, nil, []string{"c", "c_expires_at"}},
		"another key":          {map[v1alpha1.TicketType]string{jsapi: "old"}, []v1alpha1.TicketType{jsapi}, map[v1alpha1.TicketType]string{jsapi: "js"}, []string{"old", "old_expires_at"}},
		"forged: the token":    {map[v1alpha1.TicketType]string{card: "access_token"}, nil, nil, []string{"access_token_expires_at"}},
		"forged: its expiry":   {map[v1alpha1.TicketType]string{card: "expires_at"}, nil, nil, []string{"expires_at_expires_at"}},
		"forged: the ticket":   {map[v1alpha1.TicketType]string{card: "js"}, []v1alpha1.TicketType{jsapi}, map[v1alpha1.TicketType]string{jsapi: "js"}, nil},
		"passed on":            {map[v1alpha1.TicketType]string{card: "js"}, nil, nil, []string{"js", "js_expires_at"}},
		"forged: another type": {map[v1alpha1.TicketType]string{"password": "password"}, nil, nil, nil},
	} {
		if got := appliedTickets(spec.Tickets, test.previous, test.held); !maps.Equal(got, test.applied) {
			t.Errorf("%s: applied %v, want %v", name, got, test.applied)
		}
		if got := droppedKeys("access_token", test.previous, test.applied); !slices.Equal(got, test.dropped) {
			t.Errorf("%s: dropped %v, want %v", name, got, test.dropped)
		}
	}
}

func TestTicketContent(t *testing.T) {
	const value = "a-ticket"
	full := TicketContent{Key: "js", ExpiresAtKey: "js_expires_at", Value: token.NewValue(value), ExpiresAt: ticketTime}
	expiry := full
	expiry.Value = token.Value{}
	for name, test := range map[string]struct {
		content Content
		want    map[string]string
	}{
		"a ticket":   {Content{AccessTokenKey: "access_token", Tickets: []TicketContent{full}}, map[string]string{"js": value, "js_expires_at": "2026-03-01T12:00:00Z"}},
		"its expiry": {Content{AccessTokenKey: "access_token", Tickets: []TicketContent{expiry}}, map[string]string{"js_expires_at": "2026-03-01T12:00:00Z"}},
		"with a token": {
			Content{AccessTokenKey: "t", Token: token.NewValue("v"), ExpiresAt: ticketTime, AppID: "wx", Tickets: []TicketContent{expiry}},
			map[string]string{"t": "v", "expires_at": "2026-03-01T12:00:00Z", "app_id": "wx", "js_expires_at": "2026-03-01T12:00:00Z"},
		},
	} {
		got := map[string]string{}
		for k, v := range test.content.data() {
			got[k] = string(v)
		}
		if !maps.Equal(got, test.want) {
			t.Errorf("%s: %v", name, slices.Sorted(maps.Keys(got)))
		}
	}
}
