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

// limiter marks the errors of a rate limiter, so that errors.Is finds errBusy in them.
type limiter struct{ flowcontrol.RateLimiter }

func (l limiter) Wait(ctx context.Context) error {
	if err := l.RateLimiter.Wait(ctx); err != nil {
		return fmt.Errorf("%w: %w", errBusy, err)
	}
	return nil
}

// Describe returns an error that is safe to log. The message of a refusal and the error of a decoder are left out, because they
// may quote the request or the answer and with it the token.
func Describe(err error, token string) error {
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
