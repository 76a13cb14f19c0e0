// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import "strings"

// TicketPrefix returns the beginning of the message of a condition, or of
// lastError, that is about a ticket of this type and not about the token.
func TicketPrefix(kind TicketType) string { return "ticket " + string(kind) + ": " }

// TicketOf returns the type of the ticket that the message of a condition, or
// of lastError, is about. It returns an empty type if the message is about the
// token.
func TicketOf(message string) TicketType {
	for _, kind := range TicketTypes() {
		if strings.HasPrefix(message, TicketPrefix(kind)) {
			return kind
		}
	}
	return ""
}
