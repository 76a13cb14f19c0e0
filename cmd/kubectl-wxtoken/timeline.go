// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
)

// moment is one line of the timeline.
type moment struct {
	at    time.Time
	text  string
	color color
	// rank orders the moments within one second.
	rank int
}

// stamp formats a time in UTC, as the messages of the status have it, and names the time zone.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// timeline returns a table of what happened and what is expected, with a row for now between them.
func (s *story) timeline() *table {
	moments := append(s.past(), s.future()...)
	moments = append(moments, moment{at: s.now, text: "now", color: cyan, rank: 1})
	slices.SortStableFunc(moments, func(a, b moment) int {
		if c := a.at.Truncate(time.Second).Compare(b.at.Truncate(time.Second)); c != 0 {
			return c
		}
		return a.rank - b.rank
	})
	t := &table{}
	for _, m := range moments {
		when := relative(m.at, s.now)
		if m.rank == 1 {
			when = ""
		}
		lines := wrap(clean(m.text), textWidth-36)
		t.add(cell{text: stamp(m.at), color: dim}, cell{text: when}, cell{text: lines[0], color: m.color})
		for _, line := range lines[1:] {
			t.add(cell{}, cell{}, cell{text: line, color: m.color})
		}
	}
	return t
}

func (s *story) past() []moment {
	out := []moment{{at: s.CreationTimestamp.Time, text: "created", rank: -3}}
	if k := s.Status.Token; k != nil {
		out = append(out, moment{at: k.IssueTime.Time, text: s.issueText(), color: green, rank: -1})
		if left, _ := s.left(); left <= 0 {
			out = append(out, moment{at: k.ExpirationTime.Time, text: "the token expired", color: red, rank: -1})
		}
	}
	out = append(out, s.ticketMoments(true)...)
	for _, t := range s.forced() {
		out = append(out, moment{at: t, text: "a new token was forced", rank: -2})
	}
	for i := range s.events {
		out = append(out, eventMoment(&s.events[i]))
	}
	if e := s.Status.LastError; e != nil {
		out = append(out, moment{at: e.Time.Time, text: errorText(e), color: red, rank: 0})
	}
	if due := s.Status.NextRefreshTime; due != nil && !due.After(s.now) && !s.Spec.Suspend {
		out = append(out, moment{at: due.Time, text: "the refresh was due", color: yellow, rank: -1})
	}
	return slices.DeleteFunc(out, func(m moment) bool { return m.at.After(s.now.Add(time.Second)) })
}

func (s *story) issueText() string {
	text := fmt.Sprintf("token issued by WeChat, for %s", short(s.Status.Token.ExpirationTime.Sub(s.Status.Token.IssueTime.Time)))
	if s.owner && s.secret.TokenFingerprint == s.Status.Token.Fingerprint {
		text += ", and written into Secret " + s.TargetName()
	}
	return text
}

func errorText(e *v1alpha1.RefreshError) string {
	text := "the last attempt failed: " + e.Reason
	var details []string
	if e.Code != 0 {
		details = append(details, fmt.Sprintf("errcode %d", e.Code))
	}
	if e.RequestID != "" {
		details = append(details, "rid "+e.RequestID)
	}
	if e.Attempts > 1 {
		details = append(details, fmt.Sprintf("%d in a row", e.Attempts))
	}
	if len(details) > 0 {
		text += " (" + strings.Join(details, ", ") + ")"
	}
	return text
}

// eventMoment returns the line for an event. Events of the current API have an eventTime and a series; older ones have a
// lastTimestamp and a count.
func eventMoment(e *corev1.Event) moment {
	m := moment{at: e.LastTimestamp.Time, text: e.Reason + ": " + e.Message, rank: 0}
	count := int(e.Count)
	if m.at.IsZero() {
		m.at = e.EventTime.Time
	}
	if e.Series != nil {
		m.at, count = e.Series.LastObservedTime.Time, int(e.Series.Count)
	}
	if m.at.IsZero() {
		m.at = e.CreationTimestamp.Time
	}
	if count > 1 {
		m.text += fmt.Sprintf(" (%d times)", count)
	}
	if e.Type == corev1.EventTypeWarning {
		m.color = yellow
	}
	return m
}

func (s *story) future() []moment {
	var out []moment
	add := func(at time.Time, text string) { out = append(out, moment{at: at, text: text, rank: 2}) }
	if at := s.secondForcedCall(s.requested(refresh.RequestRevoke)); at.After(s.now) {
		add(at, "the revoke's second forced call ends the leaked token")
	}
	if e := s.Status.LastError; e != nil && e.RetryTime != nil && e.RetryTime.After(s.now) {
		add(e.RetryTime.Time, "the operator tries again")
	}
	if due := s.Status.NextRefreshTime; due != nil && due.After(s.now) {
		switch {
		case s.Spec.Suspend:
			add(due.Time, "the token would be replaced, if the resource were not suspended")
		case s.tokenFailing() != nil:
			add(due.Time, "the token is to be replaced, if what fails is repaired by then")
		default:
			add(due.Time, "the token is replaced; both work until the old one expires")
		}
	}
	if left, has := s.left(); has && left > 0 {
		add(s.Status.Token.ExpirationTime.Time, "this token expires")
	}
	return append(out, s.ticketMoments(false)...)
}
