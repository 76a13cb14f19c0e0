// SPDX-License-Identifier: Apache-2.0

package access

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/util/flowcontrol"
)

var (
	errBusy       = errors.New("too many callers at once")
	errUnreadable = errors.New("the API server's answer cannot be read")
)

// limiter makes its refusals known as such.
type limiter struct{ flowcontrol.RateLimiter }

func (l limiter) Wait(ctx context.Context) error {
	if err := l.RateLimiter.Wait(ctx); err != nil {
		return fmt.Errorf("%w: %w", errBusy, err)
	}
	return nil
}

// describe is what may be logged of an error. An API server's refusal may quote what it refuses, and an answer that cannot be
// decoded is quoted by the decoder: both could hold the token.
func describe(err error, token string) error {
	var refusal apierrors.APIStatus
	var request *url.Error
	switch {
	case errors.As(err, &refusal):
		return fmt.Errorf("the API server refuses the review: %s (%d)", refusal.Status().Reason, refusal.Status().Code)
	case errors.Is(err, errBusy):
		return errBusy
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("the API server did not answer in time: %w", context.DeadlineExceeded)
	case errors.As(err, &request):
		return fmt.Errorf("reaching the API server: %s", strings.ReplaceAll(request.Err.Error(), token, "[redacted]"))
	default:
		return errUnreadable
	}
}
