// SPDX-License-Identifier: Apache-2.0

package account

import (
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

func TestOlder(t *testing.T) {
	old, young := now, after(time.Second)
	of := func(created time.Time, namespace, name string) Member {
		return Member{Created: created, Name: types.NamespacedName{Namespace: namespace, Name: name}}
	}
	ordered := []Member{of(old, "a", "a"), of(old, "a", "b"), of(old, "b", "a"), of(young, "a", "a"), of(young, "a", "b")}
	for i, a := range ordered {
		for j, b := range ordered {
			if a.older(b) != (i < j) {
				t.Errorf("%v older than %v: %t", a.Name, b.Name, a.older(b))
			}
		}
	}
}

func TestFetcher(t *testing.T) {
	// fetching are the members by age; "-" before a name means that it cannot fetch.
	setUp := func(members ...string) *Account {
		a := &Account{}
		for i, name := range members {
			m := Member{Fetches: name[0] != '-', Created: after(time.Duration(i) * time.Hour)}
			if !m.Fetches {
				name = name[1:]
			}
			m.UID, m.Name = types.UID(name), named(name)
			a.Update(m)
		}
		return a
	}
	failed := func(name string, at time.Time) func(*Account) {
		return func(a *Account) { a.NoteOutcome(types.UID(name), true, at) }
	}
	worked := func(name string) func(*Account) {
		return func(a *Account) { a.NoteOutcome(types.UID(name), false, now) }
	}
	for name, test := range map[string]struct {
		members []string
		asking  types.UID
		do      []func(*Account)
		want    string
		another bool
	}{
		"one member":                  {[]string{"a"}, "a", nil, "a", false},
		"the oldest asks":             {[]string{"a", "b", "c"}, "a", nil, "a", false},
		"another one asks":            {[]string{"a", "b", "c"}, "c", nil, "a", true},
		"the oldest cannot":           {[]string{"-a", "b", "c"}, "c", nil, "b", true},
		"nobody else can":             {[]string{"-a", "-b", "c"}, "c", nil, "c", false},
		"who asks always can":         {[]string{"-a", "-b"}, "b", nil, "b", false},
		"the oldest fails":            {[]string{"a", "b", "c"}, "c", []func(*Account){failed("a", now)}, "b", true},
		"it failed a while ago":       {[]string{"a", "b"}, "b", []func(*Account){failed("a", after(-passOverFor))}, "a", true},
		"it fails for not so long":    {[]string{"a", "b"}, "b", []func(*Account){failed("a", after(time.Second-passOverFor))}, "b", false},
		"it works again":              {[]string{"a", "b"}, "b", []func(*Account){failed("a", now), worked("a")}, "a", true},
		"failed by a clock ahead":     {[]string{"a", "b"}, "b", []func(*Account){failed("a", after(time.Hour))}, "a", true},
		"who asks fails itself":       {[]string{"a", "b"}, "a", []func(*Account){failed("a", now)}, "a", false},
		"one that is no member asks":  {[]string{"a", "b"}, "x", nil, "", false},
		"an outcome of no member":     {[]string{"a", "b"}, "b", []func(*Account){failed("x", now)}, "a", true},
		"all others fail":             {[]string{"a", "b", "c"}, "c", []func(*Account){failed("a", now), failed("b", now)}, "c", false},
		"the oldest left the account": {[]string{"a", "b"}, "b", []func(*Account){func(a *Account) { a.leave("a") }}, "b", false},
	} {
		a := setUp(test.members...)
		for _, do := range test.do {
			do(a)
		}
		got, another := a.Fetcher(test.asking, now)
		if got.Name != test.want || another != test.another {
			t.Errorf("%s: %s, another %t", name, got.Name, another)
		}
	}
}

// A pass tells the account about its resource; what the account knows of the API server stays.
func TestUpdate(t *testing.T) {
	a := with("a", "b")
	a.NoteOutcome("a", true, now)
	m := member("a")
	m.Fetches, m.Receives, m.Refresh, m.Name = true, true, "now", named("renamed")
	a.Update(m)
	others := a.Others("b")
	if len(others) != 1 {
		t.Fatalf("others: %+v", others)
	}
	m.FailedAt = now
	if others[0] != m {
		t.Errorf("%+v, want %+v", others[0], m)
	}
	// The answer is a copy.
	others[0].Refresh = "edited"
	if a.Others("b")[0].Refresh != "now" {
		t.Error("the account was changed from outside")
	}
	// FailedAt is the account's own: no member sets it.
	m.FailedAt = after(time.Hour)
	if a.Update(m); !a.Others("b")[0].FailedAt.Equal(now) {
		t.Errorf("failed at %s", a.Others("b")[0].FailedAt)
	}
	if got := a.Others("x"); len(got) != 2 {
		t.Errorf("others of one that is no member: %+v", got)
	}
}
