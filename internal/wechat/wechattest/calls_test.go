// SPDX-License-Identifier: Apache-2.0

package wechattest

import (
	"strconv"
	"testing"
	"time"
)

func TestCalls(t *testing.T) {
	f := newFixture(t, Options{})
	token := f.stable(appID).Token
	f.legacy(other)
	f.probe(token)
	f.probe("unknown")
	middle := f.Calls(Filter{})[2].At
	for _, tc := range []struct {
		filter Filter
		want   int
	}{
		{Filter{}, 4},
		{Filter{AppID: appID}, 2},
		{Filter{AppID: other}, 1},
		{Filter{AppID: "wx"}, 0},
		{Filter{Endpoint: EndpointProbe}, 2},
		{Filter{AppID: appID, Endpoint: EndpointProbe}, 1},
		{Filter{Since: middle}, 2},
		{Filter{Since: middle, AppID: appID}, 1},
		{Filter{Since: time.Now().Add(time.Hour)}, 0},
	} {
		calls := f.Calls(tc.filter)
		if len(calls) != tc.want || f.Count(tc.filter) != tc.want {
			t.Errorf("%+v: %d calls, counted %d, want %d", tc.filter, len(calls), f.Count(tc.filter), tc.want)
		}
		for i := 1; i < len(calls); i++ {
			if calls[i].At.Before(calls[i-1].At) {
				t.Errorf("%+v: out of order", tc.filter)
			}
		}
	}
}

func TestCallsBeyondTheCap(t *testing.T) {
	const beyond = 10
	s := &Server{calls: newCallLog()}
	start := time.Now()
	for n := range keptCalls + beyond {
		s.calls.add(Call{At: start.Add(time.Duration(n)), AppID: "wx" + strconv.Itoa(n%2), Errcode: n})
	}
	calls := s.Calls(Filter{})
	if len(calls) != keptCalls || calls[0].Errcode != beyond || calls[keptCalls-1].Errcode != keptCalls+beyond-1 {
		t.Errorf("%d calls are kept, from %d to %d", len(calls), calls[0].Errcode, calls[len(calls)-1].Errcode)
	}
	if got := s.Count(Filter{}); got != keptCalls+beyond {
		t.Errorf("counted %d calls", got)
	}
	if got := s.Count(Filter{AppID: "wx0"}); got != (keptCalls+beyond)/2 {
		t.Errorf("counted %d calls of an app", got)
	}
	if got := s.Count(Filter{Since: start.Add(keptCalls)}); got != beyond {
		t.Errorf("counted %d calls since a time", got)
	}
	if c := s.update(beyond-1, func(c *Call) { c.Finished = true }); c != (Call{}) || s.calls.ring[beyond-1].Finished {
		t.Error("a call that is no longer kept was changed")
	}
}
