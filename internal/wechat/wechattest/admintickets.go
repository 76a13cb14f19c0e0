// SPDX-License-Identifier: Apache-2.0

package wechattest

import (
	"context"
	"net/http"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// Arguments of the part of AdminHandler that is about tickets.
type (
	ticketArgs struct {
		AppID string              `json:"appID"`
		Type  v1alpha1.TicketType `json:"type"`
		Age   time.Duration       `json:"age,omitempty"`
	}
	ticketValidArgs struct {
		Ticket string `json:"ticket"`
		// At is a time by the server's clock. If it is nil, the current time is used.
		At *time.Time `json:"at,omitempty"`
	}
	signatureArgs struct {
		AppID     string `json:"appID"`
		NonceStr  string `json:"noncestr"`
		Timestamp string `json:"timestamp"`
		URL       string `json:"url"`
		Signature string `json:"signature"`
	}
)

// handleTickets registers what is about tickets.
func handleTickets(mux *http.ServeMux, s *Server) {
	handle(mux, "tickets", func(a ticketArgs) []IssuedTicket { return s.Tickets(a.AppID, a.Type) })
	handle(mux, "ticket-valid", func(a ticketValidArgs) validResult {
		if a.At == nil {
			return validResult{s.TicketValid(a.Ticket)}
		}
		return validResult{s.TicketValidAt(a.Ticket, *a.At)}
	})
	handle(mux, "rival-ticket", func(a ticketArgs) IssuedTicket { return s.RivalTicket(a.AppID, a.Type, a.Age) })
	handle(mux, "signature", func(a signatureArgs) validResult {
		return validResult{s.SignatureValid(a.AppID, a.NonceStr, a.Timestamp, a.URL, a.Signature)}
	})
}

// Tickets calls Server.Tickets.
func (r *Remote) Tickets(ctx context.Context, appID string, kind v1alpha1.TicketType) ([]IssuedTicket, error) {
	return call[[]IssuedTicket](ctx, r, "tickets", ticketArgs{AppID: appID, Type: kind})
}

// TicketValid calls Server.TicketValid.
func (r *Remote) TicketValid(ctx context.Context, ticket string) (bool, error) {
	result, err := call[validResult](ctx, r, "ticket-valid", ticketValidArgs{Ticket: ticket})
	return result.Valid, err
}

// TicketValidAt calls Server.TicketValidAt.
func (r *Remote) TicketValidAt(ctx context.Context, ticket string, t time.Time) (bool, error) {
	result, err := call[validResult](ctx, r, "ticket-valid", ticketValidArgs{Ticket: ticket, At: &t})
	return result.Valid, err
}

// RivalTicket calls Server.RivalTicket.
func (r *Remote) RivalTicket(ctx context.Context, appID string, kind v1alpha1.TicketType, age time.Duration) (IssuedTicket, error) {
	return call[IssuedTicket](ctx, r, "rival-ticket", ticketArgs{AppID: appID, Type: kind, Age: age})
}

// SignatureValid calls Server.SignatureValid.
func (r *Remote) SignatureValid(ctx context.Context, appID, noncestr, timestamp, page, signature string) (bool, error) {
	result, err := call[validResult](ctx, r, "signature", signatureArgs{
		AppID: appID, NonceStr: noncestr, Timestamp: timestamp, URL: page, Signature: signature,
	})
	return result.Valid, err
}
