// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

func TestCountdown(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                                     "0s",
		999 * time.Millisecond:                "0s",
		59*time.Second + 999*time.Millisecond: "59s",
		time.Minute:                           "1m00s",
		61 * time.Second:                      "1m01s",
		time.Hour - time.Second:               "59m59s",
		time.Hour:                             "1h00m00s",
		2*time.Hour - time.Second:             "1h59m59s",
		25*time.Hour + time.Minute:            "25h01m00s",
	} {
		if got := countdown(d); got != want {
			t.Errorf("%s: %s, want %s", d, got, want)
		}
	}
	now := time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	for at, want := range map[time.Duration]string{-3 * time.Minute: "3m ago", -999 * time.Millisecond: "now", 0: "now", 90 * time.Second: "in 1m30s"} {
		if got := relative(now.Add(at), now); got != want {
			t.Errorf("%s from now: %s, want %s", at, got, want)
		}
	}
	for d, want := range map[time.Duration]string{2 * time.Minute: "2m", 2 * time.Hour: "2h", 90 * time.Minute: "1h30m", 90 * time.Second: "1m30s", 30 * time.Second: "30s"} {
		if got := short(d); got != want {
			t.Errorf("%s: %s, want %s", d, got, want)
		}
	}
}

// TestExpiryAndRefreshIn checks the columns EXPIRES IN and NEXT ATTEMPT in each part of a token's life.
func TestExpiryAndRefreshIn(t *testing.T) {
	issued := time.Date(2026, 1, 2, 8, 0, 0, 0, time.UTC)
	due := 2*time.Hour - 290*time.Second
	healthy := tokenAt("shop", "aa", issued)
	broken := failing(healthy, "no answer")
	retry := metav1.NewTime(issued.Add(due + 100*time.Second))
	broken.Status.LastError = &v1alpha1.RefreshError{RetryTime: &retry}
	soon := *broken.DeepCopy()
	soon.Status.LastError.RetryTime = &metav1.Time{Time: issued.Add(100 * time.Second)}
	suspended := *healthy.DeepCopy()
	suspended.Spec.Suspend = true
	for name, test := range map[string]struct {
		token           v1alpha1.WeChatAppToken
		at              time.Duration
		state           state
		expiry, refresh string
	}{
		"fresh":                          {healthy, 0, stateReady, "2h00m00s", "in 1h55m10s"},
		"a second before it is due":      {healthy, due - time.Second, stateReady, "4m51s", "in 1s"},
		"due":                            {healthy, due, stateReady, "4m50s", "now"},
		"a minute after":                 {healthy, due + overdueAfter, stateReady, "3m50s", "now"},
		"more than a minute after":       {healthy, due + overdueAfter + time.Second, stateReady, "3m49s", "overdue"},
		"at its end":                     {healthy, 2 * time.Hour, stateReady, "expired", "overdue"},
		"15 s after its end":             {healthy, 2*time.Hour + lateness, stateReady, "expired", "overdue"},
		"more than 15 s after its end":   {healthy, 2*time.Hour + lateness + time.Second, stateExpired, "expired", "overdue"},
		"failing, before it is due":      {broken, due - time.Second, stateRefreshFailing, "4m51s", "in 1s"},
		"failing, tried again after due": {broken, due + 10*time.Second, stateRefreshFailing, "4m40s", "retry in 1m30s"},
		"failing, tried again before":    {soon, 0, stateRefreshFailing, "2h00m00s", "retry in 1m40s"},
		"suspended":                      {suspended, due, stateSuspended, "4m50s", "suspended"},
	} {
		l := lookAt(&test.token, issued.Add(test.at))
		if got := l.state(); got != test.state {
			t.Errorf("%s: %s, want %s", name, got, test.state)
		}
		if got := l.expiry().text; got != test.expiry {
			t.Errorf("%s: expires in %s, want %s", name, got, test.expiry)
		}
		if got := l.attemptCell().text; got != test.refresh {
			t.Errorf("%s: next attempt %s, want %s", name, got, test.refresh)
		}
	}
}

// TestExitCodes checks that each kind of error has its documented exit code.
func TestExitCodes(t *testing.T) {
	text, err := os.ReadFile("../../docs/plugin.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## Exit codes\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var documented []string
	for _, m := range regexp.MustCompile(`(?m)^\| (\d+) \|`).FindAllStringSubmatch(section, -1) {
		documented = append(documented, m[1])
	}
	interrupted, cancel := context.WithCancel(t.Context())
	cancel()
	var got []string
	for _, c := range []struct {
		ctx context.Context
		err error
	}{
		{t.Context(), nil}, {t.Context(), failed("", "no such resource")}, {t.Context(), usage("what")}, {t.Context(), bad("", "refused")},
		{t.Context(), timedOut("", "too late")}, {interrupted, errors.New("context canceled")},
	} {
		got = append(got, fmt.Sprint(exitCode(c.ctx, c.err)))
	}
	if !slices.Equal(got, documented) {
		t.Errorf("exit codes %v, documented are %v", got, documented)
	}
	if code := exitCode(t.Context(), errors.New("anything")); code != 1 {
		t.Errorf("any error ends with %d", code)
	}
	wrapped := fmt.Errorf("the first: %w", bad("", "refused"))
	if code := exitCode(interrupted, wrapped); code != 3 {
		t.Errorf("a bad answer before Ctrl-C ends with %d", code)
	}
}
