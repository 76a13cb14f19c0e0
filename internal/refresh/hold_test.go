// SPDX-License-Identifier: Apache-2.0

package refresh

import (
	"testing"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// limited is a back-off that nothing shortens: WeChat set the pace 20 s ago.
func limited(retryAt time.Time) edit {
	return func(in *Inputs) {
		in.Failure = &Failure{
			Class: token.Limited, Reason: v1alpha1.ReasonRateLimited, Code: 45011, Binds: true,
			First: after(-20 * time.Second), Time: after(-20 * time.Second), Attempts: 1, RetryAt: retryAt,
		}
	}
}

// refused is a back-off after the API server refused the Secret.
func refused(retryAt time.Time) edit {
	return func(in *Inputs) {
		in.Failure = &Failure{
			Class: token.Action, Reason: "TargetWriteFailed", OfWrite: true, Binds: true,
			First: after(-20 * time.Second), Time: after(-20 * time.Second), Attempts: 3, RetryAt: retryAt,
		}
	}
}

func released(in *Inputs)            { in.Failure.Binds = false }
func mintAt(at time.Time) edit       { return func(in *Inputs) { in.MintNotBefore = at } }
func repairAt(at time.Time) edit     { return func(in *Inputs) { in.Target.RepairNotBefore = at } }
func every(d time.Duration) edit     { return func(in *Inputs) { in.CheckInterval = d } }
func credentialsChanged(in *Inputs)  { in.CredentialsChanged = true }
func appIDChanged(in *Inputs)        { in.Target.AppIDChanged = true }
func modeChanged(in *Inputs)         { in.Target.ModeChanged = true }
func checkDue(in *Inputs)            { in.Token.CheckedAt = after(-time.Hour) }
func due(in *Inputs)                 { in.Token.ExpiresAt = after(200 * time.Second) }
func expired(in *Inputs)             { in.Token.ExpiresAt = now }
func legacyDue(in *Inputs)           { in.Legacy, in.Token.ExpiresAt = true, after(300*time.Second) }
func legacyExpired(in *Inputs)       { in.Legacy, in.Token.ExpiresAt = true, now }
func legacyMissing(in *Inputs)       { legacy(in); missing(in) }
func legacyTampered(in *Inputs)      { legacy(in); tampered(in) }
func legacyCheckDue(in *Inputs)      { legacy(in); checkDue(in) }
func legacyUnsyncedDue(in *Inputs)   { legacyDue(in); unsynced(in) }
func legacyRefreshAsked(in *Inputs)  { legacy(in); askRefresh(in) }
func legacyUnwritten(in *Inputs)     { legacy(in); unwritten(in) }
func legacyCredentials(in *Inputs)   { legacy(in); credentialsChanged(in) }
func tamperedAndOutdated(in *Inputs) { tampered(in); outdated(in) }

// calls are situations in which WeChat is asked, and those in which only the Secret is written.
var (
	calls = map[string]struct {
		match  edit
		reason Reason
	}{
		"missing":        {missing, TargetMissing},
		"appID":          {appIDChanged, AppIDChanged},
		"credentials":    {credentialsChanged, CredentialsChanged},
		"mode":           {modeChanged, ModeChanged},
		"member":         {memberWaiting, MemberWaiting},
		"mark":           {marked, MintUnfinished},
		"tampered":       {tampered, TargetTampered},
		"expired":        {expired, Expired},
		"due":            {due, RefreshDue},
		"Legacy due":     {legacyDue, RefreshDue},
		"Legacy ask":     {legacyUnsyncedDue, RefreshDue},
		"check":          {checkDue, CheckDue},
		"Legacy check":   {legacyCheckDue, CheckDue},
		"doubtful":       {doubtful, CheckDue},
		"missing Legacy": {legacyMissing, TargetMissing},
	}
	writes = map[string]struct {
		match  edit
		reason Reason
	}{
		"unwritten":             {unwritten, TokenUnwritten},
		"outdated":              {outdated, TargetOutdated},
		"tampered and outdated": {tamperedAndOutdated, TargetOutdated},
	}
)

func TestBackOffHoldsEveryCall(t *testing.T) {
	retry := after(40 * time.Second)
	for name, call := range calls {
		if d := Decide(now, healthy(call.match, limited(retry))); d.Action != Wait || d.Reason != BackingOff || !d.At.Equal(retry) {
			t.Errorf("%s: %s %s at %s, want to wait for the back-off", name, d.Action, d.Reason, d.At)
		}
		for why, e := range map[string]edit{
			"over":      limited(now),
			"not bound": func(in *Inputs) { limited(retry)(in); released(in) },
		} {
			if d := Decide(now, healthy(call.match, e)); d.Reason != call.reason || d.Action == Wait {
				t.Errorf("%s, back-off %s: %s %s, want %s", name, why, d.Action, d.Reason, call.reason)
			}
		}
	}
	if d := Decide(now, healthy(limited(retry))); d.Reason != BackingOff || !d.At.Equal(retry) {
		t.Errorf("nothing else to do: %s at %s, want the back-off", d.Reason, d.At)
	}
}

func TestBackOffAndWrites(t *testing.T) {
	retry := after(40 * time.Second)
	for name, write := range writes {
		if d := Decide(now, healthy(write.match, limited(retry))); d.Action != Write || d.Reason != write.reason {
			t.Errorf("%s while WeChat is not to be called: %s %s, want to write", name, d.Action, d.Reason)
		}
		if d := Decide(now, healthy(write.match, refused(retry))); d.Action != Wait || d.Reason != BackingOff || !d.At.Equal(retry) {
			t.Errorf("%s after a refused write: %s %s at %s, want to wait", name, d.Action, d.Reason, d.At)
		}
		if d := Decide(now, healthy(write.match, refused(retry), released)); d.Action == Wait {
			t.Errorf("%s after a refused write of another spec: %s", name, d.Reason)
		}
	}
	if d := Decide(now, healthy(refused(retry))); d.Action != Wait || d.Reason != BackingOff {
		t.Errorf("a refused write, nothing to write: %s %s", d.Action, d.Reason)
	}
}

func TestPacing(t *testing.T) {
	at := after(25 * time.Second)
	held := map[string]struct {
		edits []edit
		at    time.Time
	}{
		"mint for a missing Secret":  {[]edit{legacyMissing, mintAt(at)}, at},
		"mint for a member":          {[]edit{memberWaiting, mintAt(at)}, at},
		"mint again":                 {[]edit{marked, mintAt(at)}, at},
		"mint for tampered data":     {[]edit{legacyTampered, mintAt(at)}, at},
		"mint for a new AppSecret":   {[]edit{legacyCredentials, mintAt(at)}, at},
		"mint when due":              {[]edit{legacyDue, mintAt(at)}, at},
		"mint when expired":          {[]edit{legacyExpired, mintAt(at)}, at},
		"repair of data":             {[]edit{tampered, repairAt(at)}, at},
		"repair of labels":           {[]edit{outdated, repairAt(at)}, at},
		"repair of both":             {[]edit{tamperedAndOutdated, repairAt(at)}, at},
		"repair of a deleted Secret": {[]edit{missing, repairAt(at)}, at},
		"repair, then mint":          {[]edit{legacyTampered, repairAt(after(time.Second)), mintAt(at)}, at},
		"mint, then repair":          {[]edit{legacyTampered, repairAt(at), mintAt(after(time.Second))}, at},
		"back-off, then mint":        {[]edit{legacyDue, limited(after(time.Second)), mintAt(at)}, after(time.Second)},
		"back-off, then repair":      {[]edit{tampered, limited(after(time.Second)), repairAt(at)}, after(time.Second)},
		"two that wait differently":  {[]edit{memberWaiting, mintAt(after(time.Minute)), outdated, repairAt(at)}, at},
		"two, the second one longer": {[]edit{memberWaiting, mintAt(at), outdated, repairAt(after(time.Minute))}, at},
		"no check meanwhile":         {[]edit{outdated, repairAt(at), checkDue}, at},
		"no doubt meanwhile":         {[]edit{outdated, repairAt(at), doubtful}, at},
	}
	for name, test := range held {
		if d := Decide(now, healthy(test.edits...)); d.Action != Wait || d.Reason != BackingOff || !d.At.Equal(test.at) {
			t.Errorf("%s: %s %s at %s, want to wait until %s", name, d.Action, d.Reason, d.At, test.at)
		}
	}
	free := map[string]struct {
		edits  []edit
		reason Reason
	}{
		"Stable mints nothing":             {[]edit{due, mintAt(at)}, RefreshDue},
		"a probe is no mint":               {[]edit{legacyCheckDue, mintAt(at)}, CheckDue},
		"failed by a clock that was ahead": {[]edit{legacyDue, failed(50004, after(time.Hour))}, RefreshDue},
		"asking first is no mint":          {[]edit{legacyUnsyncedDue, mintAt(at)}, RefreshDue},
		"a token at hand is written":       {[]edit{legacyUnwritten, mintAt(at), repairAt(at)}, TokenUnwritten},
		"labels need no mint":              {[]edit{legacyTampered, outdated, mintAt(at)}, TargetOutdated},
		"somebody asked for the mint":      {[]edit{legacyRefreshAsked, mintAt(at)}, RequestExecutable},
		"the pace of mints is kept":        {[]edit{legacyDue, mintAt(now)}, RefreshDue},
		"a rotation is no repair":          {[]edit{due, repairAt(at)}, RefreshDue},
		"an expired token is no repair":    {[]edit{expired, tampered, repairAt(at)}, Expired},
		"new credentials are no repair":    {[]edit{credentialsChanged, repairAt(at)}, CredentialsChanged},
		"a new appid is no repair":         {[]edit{appIDChanged, repairAt(at)}, AppIDChanged},
		"a new mode is no repair":          {[]edit{modeChanged, repairAt(at)}, ModeChanged},
		"a check is no repair":             {[]edit{checkDue, repairAt(at)}, CheckDue},
	}
	for name, test := range free {
		if d := Decide(now, healthy(test.edits...)); d.Action == Wait || d.Reason != test.reason {
			t.Errorf("%s: %s %s, want %s", name, d.Action, d.Reason, test.reason)
		}
	}
}

func TestWakeUp(t *testing.T) {
	soon, later := after(30*time.Second), after(50*time.Second)
	tests := map[string]struct {
		edits []edit
		want  time.Time
	}{
		"deleting waits for nothing":         {[]edit{func(in *Inputs) { in.Deleting = true }}, time.Time{}},
		"suspended sleeps until the expiry":  {[]edit{func(in *Inputs) { in.Suspended = true }}, after(90 * time.Minute)},
		"suspended, due":                     {[]edit{func(in *Inputs) { in.Suspended = true }, due}, after(200 * time.Second)},
		"suspended, expired":                 {[]edit{func(in *Inputs) { in.Suspended = true }, expired}, time.Time{}},
		"suspended, no token":                {[]edit{func(in *Inputs) { in.Suspended = true }, missing}, time.Time{}},
		"no credentials":                     {[]edit{func(in *Inputs) { in.CredentialsMissing = true }}, after(2 * time.Minute)},
		"no credentials, expires soon":       {[]edit{func(in *Inputs) { in.CredentialsMissing = true }, expires(soon)}, soon},
		"no credentials, expired":            {[]edit{func(in *Inputs) { in.CredentialsMissing = true }, expired}, after(2 * time.Minute)},
		"not ours":                           {[]edit{func(in *Inputs) { in.Target.Denied = true }}, after(2 * time.Minute)},
		"not ours, expires soon":             {[]edit{func(in *Inputs) { in.Target.Denied = true }, expires(soon)}, soon},
		"backing off, expires first":         {[]edit{limited(later), expires(soon)}, soon},
		"backing off beyond checkInterval":   {[]edit{limited(after(time.Hour))}, after(2 * time.Minute)},
		"a repair is paced, due first":       {[]edit{outdated, repairAt(later), func(in *Inputs) { expires(later)(in); in.Token.IssuedAt = after(30 * time.Second) }}, after(40 * time.Second)},
		"the next check is far, expiry near": {[]edit{every(time.Hour), checked(now), func(in *Inputs) { expires(soon)(in); in.Token.IssuedAt = after(10 * time.Second) }}, after(20 * time.Second)},
		"due before the check":               {[]edit{every(time.Hour), checked(now), func(in *Inputs) { expires(later)(in); in.Token.IssuedAt = after(10 * time.Second) }}, soon},
		"the repeat of a due call":           {[]edit{checked(after(-2 * time.Second)), expires(after(280 * time.Second))}, after(3 * time.Second)},
		"nothing stored, nothing to do":      {[]edit{func(in *Inputs) { in.Token = Token{} }}, after(2 * time.Minute)},
	}
	for name, test := range tests {
		if d := Decide(now, healthy(test.edits...)); d.Action != Wait || !d.At.Equal(test.want) {
			t.Errorf("%s: %s %s at %s, want to wait until %s", name, d.Action, d.Reason, d.At, test.want)
		}
	}
	if d, want := Decide(now, healthy()), CheckAt(healthy()); !d.At.Equal(want) || want.Before(after(48*time.Second)) || want.After(after(72*time.Second)) {
		t.Errorf("checked a minute ago: wakes at %s, and the next check is at %s", d.At, want)
	}
	for _, interval := range []time.Duration{30 * time.Second, 2 * time.Minute, time.Hour} {
		d := Decide(now, healthy(every(interval), checked(now)))
		if least := after(interval * 9 / 10); d.Reason != UpToDate || d.At.Before(least) || d.At.After(after(interval)) {
			t.Errorf("checked every %s: %s at %s", interval, d.Reason, d.At)
		}
	}
}
