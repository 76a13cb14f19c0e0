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

// outageUntil is a back-off after failures that pass by themselves.
func outageUntil(first, retryAt time.Time) edit {
	return func(in *Inputs) {
		failedSince(first)(in)
		in.Failure.RetryAt = retryAt
	}
}

// backedOff is a back-off of the operator's own, outside the handover window.
func backedOff(retryAt time.Time) edit {
	return func(in *Inputs) {
		in.Failure = &Failure{
			Class: token.Action, Reason: v1alpha1.ReasonAppSecretFrozen, Code: 40243, Binds: true,
			First: after(-20 * time.Second), Time: after(-20 * time.Second), Attempts: 3, RetryAt: retryAt,
		}
	}
}

func released(in *Inputs)            { in.Failure.Binds = false }
func mintAt(at time.Time) edit       { return func(in *Inputs) { in.Account.MintNotBefore = at } }
func mintEndsBy(at time.Time) edit   { return func(in *Inputs) { in.Account.MintEndsBy = at } }
func mintedAt(at time.Time) edit     { return func(in *Inputs) { in.Account.LastMint = at } }
func failureAt(at time.Time) edit    { return func(in *Inputs) { in.Failure.Time = at } }
func repairAt(at time.Time) edit     { return func(in *Inputs) { in.Target.RepairNotBefore = at } }
func every(d time.Duration) edit     { return func(in *Inputs) { in.CheckInterval = d } }
func credentialsChanged(in *Inputs)  { in.Credentials.Changed = true }
func appIDChanged(in *Inputs)        { in.Target.AppIDChanged = true }
func modeChanged(in *Inputs)         { in.Target.ModeChanged = true }
func checkDue(in *Inputs)            { in.Token.CheckedAt = after(-time.Hour) }
func due(in *Inputs)                 { in.Token.ExpiresAt = after(200 * time.Second) }
func expired(in *Inputs)             { in.Token.ExpiresAt = now }
func legacyDue(in *Inputs)           { in.Traits, in.Token.ExpiresAt = Legacy(), after(300*time.Second) }
func legacyExpired(in *Inputs)       { in.Traits, in.Token.ExpiresAt = Legacy(), now }
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

// Labels that the API server refuses hold nothing but the write of labels, and a failed call holds no labels.
func TestBackOffOfMetadata(t *testing.T) {
	retry := after(40 * time.Second)
	labels := func(in *Inputs) {
		refused(retry)(in)
		in.Failure.OfMetadata = true
		in.Failure, in.MetadataFailure = nil, in.Failure
		in.Target.Outdated = true
	}
	for name, test := range map[string]struct {
		match  edit
		reason Reason
	}{
		"check": {checkDue, CheckDue}, "rotation": {due, RefreshDue}, "a token at hand": {unwritten, TokenUnwritten}, "data": {tampered, TargetTampered},
	} {
		if d := Decide(now, healthy(labels, test.match)); d.Action == Wait || d.Reason != test.reason {
			t.Errorf("%s: %s %s, want %s", name, d.Action, d.Reason, test.reason)
		}
		soon := after(10 * time.Second)
		if d := Decide(now, healthy(labels, limited(soon), test.match)); test.reason != TokenUnwritten && (d.Reason != BackingOff || !d.At.Equal(soon)) {
			t.Errorf("%s, after a failed call: %s %s at %s, want to wait until %s", name, d.Action, d.Reason, d.At, soon)
		}
	}
	if d := Decide(now, healthy(labels)); d.Action != Wait || d.Reason != UpToDate || !d.At.Equal(retry) || !d.RetryAt.Equal(retry) {
		t.Errorf("labels: %s %s at %s, want to wait until %s", d.Action, d.Reason, d.At, retry)
	}
	for name, e := range map[string]edit{"after the back-off": limited(after(time.Hour)), "of another spec": func(in *Inputs) { in.MetadataFailure.Binds = false }} {
		at := now
		if name == "after the back-off" {
			at = retry
		}
		if d := Decide(at, healthy(labels, e)); d.Reason != TargetOutdated {
			t.Errorf("labels, %s: %s %s", name, d.Action, d.Reason)
		}
	}
	v := Decide(now, healthy(labels, expired)).Verdict
	if v.Problem == ProblemFailure || v.Failing != FailingAttempt || v.Tell != TellCurrent {
		t.Errorf("labels, and no token: %+v", v)
	}
	v = Decide(now, healthy(labels, expired, limited(retry))).Verdict
	if v.Problem != ProblemFailure || v.Class != token.Limited {
		t.Errorf("labels, and a failed call: %+v", v)
	}
}

func TestPacing(t *testing.T) {
	at := after(25 * time.Second)
	held := map[string]struct {
		edits []edit
		at    time.Time
	}{
		"mint for a missing Secret":  {[]edit{legacyMissing, mintAt(at)}, at},
		"mint again":                 {[]edit{marked, mintAt(at)}, at},
		"mint for tampered data":     {[]edit{legacyTampered, mintAt(at)}, at},
		"mint for a new AppSecret":   {[]edit{legacyCredentials, mintAt(at)}, at},
		"mint when due":              {[]edit{legacyDue, mintAt(at)}, at},
		"mint when expired":          {[]edit{legacyExpired, mintAt(at)}, at},
		"repair of data":             {[]edit{tampered, repairAt(at)}, at},
		"repair of both":             {[]edit{tamperedAndOutdated, repairAt(at)}, at},
		"repair of a deleted Secret": {[]edit{missing, repairAt(at)}, at},
		"repair, then mint":          {[]edit{legacyTampered, repairAt(after(time.Second)), mintAt(at)}, at},
		"mint, then repair":          {[]edit{legacyTampered, repairAt(at), mintAt(after(time.Second))}, at},
		"back-off, then mint":        {[]edit{legacyDue, limited(after(time.Second)), mintAt(at)}, after(time.Second)},
		"back-off, then repair":      {[]edit{tampered, limited(after(time.Second)), repairAt(at)}, after(time.Second)},
		"two that wait differently":  {[]edit{legacyDue, mintAt(after(time.Minute)), outdated, repairAt(at)}, at},
		"two, the second one longer": {[]edit{legacyDue, mintAt(at), outdated, repairAt(after(time.Minute))}, at},
		"no check meanwhile":         {[]edit{tampered, repairAt(at), checkDue}, at},
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
		"labels keep no check waiting":     {[]edit{outdated, repairAt(at), checkDue}, CheckDue},
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
		"repair of labels":                   {[]edit{outdated, repairAt(soon)}, soon},
		"labels, and a member that waits":    {[]edit{memberWaiting, mintAt(later), outdated, repairAt(soon)}, soon},
		"a member that waits, and labels":    {[]edit{memberWaiting, mintAt(soon), outdated, repairAt(later)}, soon},
		"deleting waits for nothing":         {[]edit{func(in *Inputs) { in.Deleting = true }}, time.Time{}},
		"suspended sleeps until the expiry":  {[]edit{func(in *Inputs) { in.Suspended = true }}, after(90 * time.Minute)},
		"suspended, due":                     {[]edit{func(in *Inputs) { in.Suspended = true }, due}, after(200 * time.Second)},
		"suspended, expired":                 {[]edit{func(in *Inputs) { in.Suspended = true }, expired}, time.Time{}},
		"suspended, no token":                {[]edit{func(in *Inputs) { in.Suspended = true }, missing}, time.Time{}},
		"no credentials":                     {[]edit{func(in *Inputs) { in.Credentials.Missing = true }}, after(2 * time.Minute)},
		"no credentials, expires soon":       {[]edit{func(in *Inputs) { in.Credentials.Missing = true }, expires(soon)}, soon},
		"no credentials, expired":            {[]edit{func(in *Inputs) { in.Credentials.Missing = true }, expired}, after(2 * time.Minute)},
		"not ours":                           {[]edit{func(in *Inputs) { in.Target.Conflict = true }}, after(2 * time.Minute)},
		"not ours, expires soon":             {[]edit{func(in *Inputs) { in.Target.Conflict = true }, expires(soon)}, soon},
		"backing off, expires first":         {[]edit{limited(later), expires(soon)}, soon},
		"backing off beyond checkInterval":   {[]edit{limited(after(time.Hour))}, after(2 * time.Minute)},
		"a repair is paced, due first":       {[]edit{outdated, repairAt(later), func(in *Inputs) { expires(later)(in); in.Token.IssuedAt = after(30 * time.Second) }}, after(40 * time.Second)},
		"the next check is far, expiry near": {[]edit{every(time.Hour), checked(now), func(in *Inputs) { expires(soon)(in); in.Token.IssuedAt = after(10 * time.Second) }}, after(20 * time.Second)},
		"due before the check":               {[]edit{every(time.Hour), checked(now), func(in *Inputs) { expires(later)(in); in.Token.IssuedAt = after(10 * time.Second) }}, soon},
		"the repeat of a due call":           {[]edit{checked(after(-2 * time.Second)), expires(after(280 * time.Second))}, after(3 * time.Second)},
		"a failure is to be told":            {[]edit{outageUntil(after(-20*time.Second), after(55*time.Second))}, after(40 * time.Second)},
		"an attempt comes first":             {[]edit{outageUntil(after(-20*time.Second), soon)}, soon},
		"a failure was told":                 {[]edit{outageUntil(after(-70*time.Second), later)}, later},
		"a write is to be told":              {[]edit{outdated, outageUntil(after(-20*time.Second), after(55*time.Second)), ofWrite}, after(40 * time.Second)},
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

func replaceBy(at time.Time) edit      { return func(in *Inputs) { in.Token.ReplaceBy = at } }
func checkNotBefore(at time.Time) edit { return func(in *Inputs) { in.Token.CheckNotBefore = at } }

// What another member waits for is held by the account's pace. That keeps no member from checking or renewing its own token.
func TestMemberWaiting(t *testing.T) {
	at := after(25 * time.Second)
	tests := map[string]struct {
		edits  []edit
		action Action
		reason Reason
		at     time.Time
	}{
		"the pace allows a mint":           {[]edit{memberWaiting, mintAt(now)}, Issue, MemberWaiting, time.Time{}},
		"held":                             {[]edit{memberWaiting, mintAt(at)}, Wait, UpToDate, at},
		"held by another member's mint":    {[]edit{memberWaiting, mintEndsBy(at)}, Wait, UpToDate, at},
		"held, check due":                  {[]edit{memberWaiting, mintAt(at), checkDue}, Check, CheckDue, time.Time{}},
		"held, doubtful":                   {[]edit{memberWaiting, mintAt(at), doubtful}, Check, CheckDue, time.Time{}},
		"held, outdated":                   {[]edit{memberWaiting, mintAt(at), outdated}, Write, TargetOutdated, time.Time{}},
		"held, due and held as well":       {[]edit{legacyDue, memberWaiting, mintAt(at), checkDue}, Wait, BackingOff, at},
		"backing off, check due":           {[]edit{memberWaiting, limited(at), checkDue}, Wait, BackingOff, at},
		"held for longer than the check":   {[]edit{memberWaiting, mintAt(after(time.Hour)), checked(now), every(30 * time.Second)}, Wait, UpToDate, CheckAt(healthy(legacy, checked(now), every(30*time.Second)))},
		"no token of its own, both held":   {[]edit{memberWaiting, missing, mintAt(at)}, Wait, BackingOff, at},
		"it waits for the others' mint":    {[]edit{memberWaiting, mintAt(after(time.Minute)), mintEndsBy(at), checkDue}, Check, CheckDue, time.Time{}},
		"another asks, this one refreshes": {[]edit{memberWaiting, askRefresh, mintAt(at)}, Force, RequestExecutable, time.Time{}},
	}
	for name, test := range tests {
		if d := Decide(now, healthy(test.edits...)); d.Action != test.action || d.Reason != test.reason || !d.At.Equal(test.at) {
			t.Errorf("%s: %s %s at %s, want %s %s at %s", name, d.Action, d.Reason, d.At, test.action, test.reason, test.at)
		}
	}
}

// A change of spec or credentials ends a back-off. Where a check is the ordinary call, it tells at once whether the failure is over; a
// probe of a minted token does not tell what the next mint meets.
func TestCauseChanged(t *testing.T) {
	retry := after(time.Hour)
	changed := func(class token.Class) edit {
		return func(in *Inputs) {
			in.Failure = &Failure{
				Class: class, Reason: "any", First: after(-time.Minute), Time: after(-time.Minute), Attempts: 3, RetryAt: retry,
			}
		}
	}
	soon := after(8 * time.Second)
	for name, test := range map[string]struct {
		edits  []edit
		reason Reason
	}{
		"Stable, Action":             {[]edit{changed(token.Action)}, CheckDue},
		"Stable, Transient":          {[]edit{changed(token.Transient)}, CheckDue},
		"Legacy, Action":             {[]edit{legacy, changed(token.Action)}, UpToDate},
		"Legacy, Transient":          {[]edit{legacy, changed(token.Transient)}, CheckDue},
		"Legacy, Limited":            {[]edit{legacy, changed(token.Limited)}, CheckDue},
		"Legacy, Action, but due":    {[]edit{legacyDue, changed(token.Action)}, RefreshDue},
		"Legacy, new credentials":    {[]edit{legacyCredentials, changed(token.Action)}, CredentialsChanged},
		"Legacy, Action, check due":  {[]edit{legacyCheckDue, changed(token.Action)}, CheckDue},
		"just called":                {[]edit{changed(token.Action), checkNotBefore(soon)}, UpToDate},
		"the same cause backs off":   {[]edit{backedOff(retry)}, BackingOff},
		"no failure, nothing to ask": {nil, UpToDate},
	} {
		if d := Decide(now, healthy(test.edits...)); d.Reason != test.reason {
			t.Errorf("%s: %s %s, want %s", name, d.Action, d.Reason, test.reason)
		}
	}
	// Just after a call, the check is made as soon as the next one may be.
	if d := Decide(now, healthy(checked(now), changed(token.Action), checkNotBefore(soon))); d.Action != Wait || !d.At.Equal(soon) {
		t.Errorf("just called: %s at %s, want %s", d.Action, d.At, soon)
	}
}

// Members whose answers contradict each other make each other's tokens doubtful, and are checked at a pace.
func TestPaceOfDoubt(t *testing.T) {
	soon := after(8 * time.Second)
	for name, test := range map[string]struct {
		edits  []edit
		action Action
		reason Reason
		at     time.Time
	}{
		"doubtful":                      {[]edit{doubtful}, Check, CheckDue, time.Time{}},
		"doubtful, asked just now":      {[]edit{doubtful, checkNotBefore(soon)}, Wait, UpToDate, soon},
		"doubtful, asked a while ago":   {[]edit{doubtful, checkNotBefore(now)}, Check, CheckDue, time.Time{}},
		"not doubtful":                  {[]edit{checkNotBefore(soon)}, Wait, UpToDate, CheckAt(healthy())},
		"check due all the same":        {[]edit{doubtful, checkNotBefore(soon), checkDue}, Check, CheckDue, time.Time{}},
		"a repair is paced, too":        {[]edit{doubtful, repairAt(soon)}, Wait, BackingOff, soon},
		"both paces, the repair longer": {[]edit{doubtful, checkNotBefore(after(time.Second)), repairAt(soon)}, Wait, UpToDate, after(time.Second)},
		"without a Secret":              {[]edit{missing, doubtful, checkNotBefore(soon)}, Issue, TargetMissing, time.Time{}},
		"due":                           {[]edit{due, doubtful, checkNotBefore(soon)}, Issue, RefreshDue, time.Time{}},
		"backing off":                   {[]edit{doubtful, limited(soon)}, Wait, BackingOff, soon},
	} {
		if d := Decide(now, healthy(test.edits...)); d.Action != test.action || d.Reason != test.reason || !d.At.Equal(test.at) {
			t.Errorf("%s: %s %s at %s, want %s %s at %s", name, d.Action, d.Reason, d.At, test.action, test.reason, test.at)
		}
	}
}

// Nobody saw WeChat issue this Legacy token, and a check cannot tell which appid it belongs to: it is replaced soon.
func TestReplaceBy(t *testing.T) {
	soon := after(30 * time.Second)
	for name, test := range map[string]struct {
		edits  []edit
		action Action
		reason Reason
		dueAt  time.Time
	}{
		"not yet":            {[]edit{legacy, replaceBy(soon)}, Wait, UpToDate, soon},
		"now":                {[]edit{legacy, replaceBy(now)}, Issue, RefreshDue, now},
		"long ago":           {[]edit{legacy, replaceBy(after(-time.Hour))}, Issue, RefreshDue, after(-time.Hour)},
		"later than its due": {[]edit{legacyDue, replaceBy(after(time.Hour))}, Issue, RefreshDue, DueAt(healthy(legacyDue))},
		"no reason to":       {[]edit{legacy, replaceBy(time.Time{})}, Wait, UpToDate, DueAt(healthy(legacy))},
		"expired":            {[]edit{legacyExpired, replaceBy(now)}, Issue, Expired, DueAt(healthy(legacyExpired))},
		"paced":              {[]edit{legacy, replaceBy(now), mintAt(soon)}, Wait, BackingOff, now},
		"clock unknown":      {[]edit{legacy, replaceBy(now), unsynced}, Check, RefreshDue, now},
		"Stable asks WeChat": {[]edit{replaceBy(now)}, Wait, UpToDate, DueAt(healthy())},
	} {
		d := Decide(now, healthy(test.edits...))
		if d.Action != test.action || d.Reason != test.reason || !d.DueAt.Equal(test.dueAt) {
			t.Errorf("%s: %s %s, due at %s, want %s %s, due at %s", name, d.Action, d.Reason, d.DueAt, test.action, test.reason, test.dueAt)
		}
		if d.Action == Wait && d.Reason == UpToDate && d.At.After(test.dueAt) {
			t.Errorf("%s: wakes at %s, after it is due", name, d.At)
		}
	}
}

// The check that a changed cause allows is paced like any other, and made as soon as the pace allows it.
func TestCauseChangedWakes(t *testing.T) {
	soon := after(8 * time.Second)
	d := Decide(now, healthy(checked(now), every(time.Hour), backedOff(after(time.Hour)), released, checkNotBefore(soon)))
	if d.Action != Wait || !d.At.Equal(soon) {
		t.Errorf("%s %s at %s, want to wait until %s", d.Action, d.Reason, d.At, soon)
	}
}
