// SPDX-License-Identifier: Apache-2.0

package target

import (
	"reflect"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

func TestRecorded(t *testing.T) {
	got := Recorded(full())
	want := Token{
		Fingerprint: "1f0c3a5b7d9e2468", Mode: v1alpha1.ModeStable, AppID: appID, IssuedAt: issuedAt, ExpiresAt: issuedAt.Add(2 * time.Hour),
		Credentials: "9a8b7c6d5e4f3021", Unattested: true,
	}
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := Recorded(Record{}); got != (Token{Unattested: true}) {
		t.Errorf("an empty record: %+v", got)
	}
}

// Only the status proves that WeChat issued a token. What it says counts before what the annotations say.
func TestAttested(t *testing.T) {
	issued, expires := issuedAt.Add(time.Minute), issuedAt.Add(time.Hour)
	said := func(fingerprint string) *v1alpha1.TokenStatus {
		return &v1alpha1.TokenStatus{
			Mode: v1alpha1.ModeLegacy, Fingerprint: fingerprint,
			IssueTime: metav1.NewTime(issued.In(time.FixedZone("CST", 8*3600))), ExpirationTime: metav1.NewTime(expires),
		}
	}
	of := func(fingerprint string, unattested bool) Token {
		return Token{
			Fingerprint: fingerprint, Mode: v1alpha1.ModeLegacy, AppID: appID, IssuedAt: issued, ExpiresAt: expires,
			Credentials: "9a8b7c6d5e4f3021", Unattested: unattested,
		}
	}
	for name, test := range map[string]struct {
		status *v1alpha1.TokenStatus
		record Record
		want   Token
	}{
		"the same token":          {said("1f0c3a5b7d9e2468"), stored(), of("1f0c3a5b7d9e2468", false)},
		"the record says another": {said("0000000000000000"), stored(), of("0000000000000000", false)},
		"nobody saw it issued":    {said(""), stored(), of("1f0c3a5b7d9e2468", true)},
		"an empty record": {said("1f0c3a5b7d9e2468"), Record{}, Token{
			Fingerprint: "1f0c3a5b7d9e2468", Mode: v1alpha1.ModeLegacy, IssuedAt: issued, ExpiresAt: expires,
		}},
	} {
		got := Attested(test.status, test.record)
		if got != test.want || got.IssuedAt.Location() != time.UTC {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
	}
}

func TestBelievable(t *testing.T) {
	now := issuedAt
	for name, test := range map[string]struct {
		expiresAt             time.Time
		plausible, unattested bool
		want                  bool
	}{
		"two hours":                      {now.Add(2 * time.Hour), true, true, true},
		"expired":                        {now.Add(-time.Hour), true, true, true},
		"no expiry":                      {time.Time{}, true, true, true},
		"the longest, and some slack":    {now.Add(4*time.Hour + 5*time.Minute - 1), true, true, true},
		"a moment more":                  {now.Add(4*time.Hour + 5*time.Minute), false, true, false},
		"ten years":                      {now.AddDate(10, 0, 0), false, true, false},
		"a moment more, of our own":      {now.Add(4*time.Hour + 5*time.Minute), false, false, true},
		"ten years, of a clock of ours":  {now.AddDate(10, 0, 0), false, false, true},
		"the longest that WeChat grants": {now.Add(4 * time.Hour), true, false, true},
	} {
		if got := Plausible(test.expiresAt, now); got != test.plausible {
			t.Errorf("%s: plausible %t", name, got)
		}
		if got := (Token{ExpiresAt: test.expiresAt, Unattested: test.unattested}).Believable(now); got != test.want {
			t.Errorf("%s: believable %t", name, got)
		}
	}
}

func TestJudge(t *testing.T) {
	fingerprint := token.NewValue(tokenText).Fingerprint()
	expiry, now := issuedAt.Add(2*time.Hour), issuedAt.Add(time.Minute)
	// The data is that of liveSecret, and the annotations agree with it.
	agreeing := stored()
	agreeing.TokenFingerprint = fingerprint
	known := Token{Fingerprint: fingerprint, AppID: appID, ExpiresAt: expiry, Mode: v1alpha1.ModeStable}
	withRecord := func(edit func(*Record)) func(*Snapshot) {
		return func(s *Snapshot) {
			r := agreeing
			edit(&r)
			s.Meta.Annotations = annotations(r)
		}
	}
	withData := func(key, value string) func(*Snapshot) { return func(s *Snapshot) { s.data[key] = []byte(value) } }
	other := Token{Fingerprint: "0000000000000000", AppID: appID, ExpiresAt: expiry}
	for name, test := range map[string]struct {
		edit    func(*Snapshot)
		known   []Token
		holding Holding
		match   int
	}{
		"what this process wrote":              {nil, []Token{known}, HoldsKnown, 0},
		"what the status says":                 {nil, []Token{other, known}, HoldsKnown, 1},
		"the likeliest of two that agree":      {nil, []Token{known, known}, HoldsKnown, 0},
		"known, annotations stripped":          {func(s *Snapshot) { s.Meta.Annotations = nil }, []Token{known}, HoldsKnown, 0},
		"known, annotations say another":       {withRecord(func(r *Record) { r.TokenFingerprint = "x" }), []Token{known}, HoldsKnown, 0},
		"known, without an appid":              {nil, []Token{{Fingerprint: fingerprint, ExpiresAt: expiry}}, HoldsKnown, 0},
		"known, for another appid":             {nil, []Token{{Fingerprint: fingerprint, AppID: "wxother", ExpiresAt: expiry}}, HoldsUnattested, -1},
		"known, with another expiry":           {nil, []Token{{Fingerprint: fingerprint, AppID: appID, ExpiresAt: expiry.Add(time.Minute)}}, HoldsUnattested, -1},
		"nothing is known":                     {nil, nil, HoldsUnattested, -1},
		"another one is known":                 {nil, []Token{other}, HoldsUnattested, -1},
		"another one, annotations stripped":    {func(s *Snapshot) { s.Meta.Annotations = nil }, []Token{other}, HoldsOther, -1},
		"another token than the annotations'":  {withData("access_token", "planted"), []Token{known}, HoldsOther, -1},
		"no data":                              {func(s *Snapshot) { clear(s.data) }, []Token{known}, HoldsOther, -1},
		"an expiry that was edited":            {withData("expires_at", "2030-01-01T00:00:00Z"), []Token{known}, HoldsOther, -1},
		"an appid that was edited":             {withData("app_id", "wxfedcba9876543210"), []Token{known}, HoldsOther, -1},
		"unknown, no mode":                     {withRecord(func(r *Record) { r.Mode = "" }), nil, HoldsOther, -1},
		"unknown, a mode that does not exist":  {withRecord(func(r *Record) { r.Mode = "Quick" }), nil, HoldsOther, -1},
		"unknown, not issued":                  {withRecord(func(r *Record) { r.IssuedAt = time.Time{} }), nil, HoldsOther, -1},
		"unknown, no fingerprint":              {withRecord(func(r *Record) { r.TokenFingerprint = "" }), nil, HoldsOther, -1},
		"unknown, an expiry that WeChat gives": {nil, nil, HoldsUnattested, -1},
		"an empty token that nobody knows":     {func(s *Snapshot) { s.Meta.Annotations = nil; clear(s.data) }, []Token{{}}, HoldsOther, -1},
	} {
		s := snapshotOf(agreeing)
		if test.edit != nil {
			test.edit(&s)
		}
		v, match := Judge(s, DecodeRecord(s.Meta.Annotations), "access_token", test.known, now)
		want := Verdict{UID: "secret-uid", ResourceVersion: "43", Holding: test.holding}
		if v != want || match != test.match {
			t.Errorf("%s: %+v, match %d, want %+v, match %d", name, v, match, want, test.match)
		}
	}
	// The key is that of the spec.
	if v, _ := Judge(snapshotOf(agreeing), DecodeRecord(snapshotOf(agreeing).Meta.Annotations), "theirs", []Token{known}, now); v.Holding != HoldsOther {
		t.Errorf("under another key: %s", v.Holding)
	}
}

// snapshotOf returns liveSecret with the annotations of a record.
func snapshotOf(r Record) Snapshot {
	live := liveSecret()
	live.Annotations = annotations(r)
	return Snapshot{
		Meta: &metav1.PartialObjectMetadata{TypeMeta: secretType(), ObjectMeta: live.ObjectMeta}, Type: live.Type, data: live.Data,
	}
}

// Whoever edits a Secret can write any expiry, and is not believed. While the time is not known, nobody can tell.
func TestJudgeExpiry(t *testing.T) {
	far := issuedAt.AddDate(10, 0, 0)
	r := stored()
	r.TokenFingerprint, r.ExpiresAt = token.NewValue(tokenText).Fingerprint(), far
	s := snapshotOf(r)
	s.data["expires_at"] = []byte(FormatTime(far))
	for name, test := range map[string]struct {
		known []Token
		now   time.Time
		want  Holding
	}{
		"an expiry in ten years":        {nil, issuedAt, HoldsOther},
		"in an hour":                    {nil, far.Add(-time.Hour), HoldsUnattested},
		"the time is not known":         {nil, time.Time{}, HoldsUnattested},
		"a known token, a clock ran on": {[]Token{{Fingerprint: r.TokenFingerprint, AppID: appID, ExpiresAt: far}}, issuedAt, HoldsKnown},
	} {
		if v, _ := Judge(s, DecodeRecord(s.Meta.Annotations), "access_token", test.known, test.now); v.Holding != test.want {
			t.Errorf("%s: %s, want %s", name, v.Holding, test.want)
		}
	}
}

// Whoever edits the Secret can write any time, but the token was issued before it was seen.
func TestUnattestedTokenFromTheFuture(t *testing.T) {
	seen := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, test := range map[string]struct {
		holding              Holding
		issuedAt, seen, want time.Time
	}{
		"from the future":          {HoldsUnattested, seen.Add(time.Hour), seen, seen},
		"from the past":            {HoldsUnattested, seen.Add(-time.Hour), seen, seen.Add(-time.Hour)},
		"while no time is known":   {HoldsUnattested, seen.Add(time.Hour), time.Time{}, seen.Add(time.Hour)},
		"known from another clock": {HoldsKnown, seen.Add(time.Hour), seen, seen.Add(time.Hour)},
	} {
		k := Knowledge{Verdict: Verdict{Holding: test.holding, At: test.seen}}
		if got := k.IssuedBy(Token{IssuedAt: test.issuedAt}); !got.Equal(test.want) {
			t.Errorf("%s: issued at %s, want %s", name, got, test.want)
		}
	}
}

// Some Secrets cannot receive a token, whatever they hold.
func TestRefusal(t *testing.T) {
	for name, test := range map[string]struct {
		edit func(*Snapshot)
		says []string
	}{
		"Opaque":                  {func(*Snapshot) {}, nil},
		"another type":            {func(s *Snapshot) { s.Type = corev1.SecretTypeTLS }, []string{`"shop-token"`, `"kubernetes.io/tls"`, "spec.target.name"}},
		"immutable":               {func(s *Snapshot) { s.Immutable = true }, []string{`"shop-token"`, "immutable", "delete it"}},
		"another type, immutable": {func(s *Snapshot) { s.Type, s.Immutable = corev1.SecretTypeTLS, true }, []string{"type"}},
	} {
		s := snapshotOf(stored())
		test.edit(&s)
		v, _ := Judge(s, DecodeRecord(s.Meta.Annotations), "access_token", nil, issuedAt)
		if (v.Refused == "") != (test.says == nil) {
			t.Errorf("%s: %q", name, v.Refused)
		}
		for _, text := range test.says {
			if !strings.Contains(v.Refused, text) {
				t.Errorf("%s: %q lacks %s", name, v.Refused, text)
			}
		}
		noToken(t, v)
	}
}

func TestComplete(t *testing.T) {
	for name, test := range map[string]struct {
		edit func(*Record)
		want bool
	}{
		"all of it":    {func(*Record) {}, true},
		"Legacy":       {func(r *Record) { r.Mode = v1alpha1.ModeLegacy }, true},
		"no expiry":    {func(r *Record) { r.ExpiresAt = time.Time{} }, false},
		"not issued":   {func(r *Record) { r.IssuedAt = time.Time{} }, false},
		"no mode":      {func(r *Record) { r.Mode = "" }, false},
		"another mode": {func(r *Record) { r.Mode = "stable" }, false},
		"nothing":      {func(r *Record) { *r = Record{} }, false},
	} {
		r := stored()
		if test.edit(&r); r.Complete() != test.want {
			t.Errorf("%s: complete %t", name, !test.want)
		}
	}
}

// A mark is recognized after it went through an annotation, to the nanosecond.
func TestMarksCompare(t *testing.T) {
	r := full()
	r.Mint.StartedAt = time.Now().UTC()
	if got := DecodeRecord(annotations(r)).Mint; got != r.Mint || !reflect.DeepEqual(got, r.Mint) {
		t.Errorf("%v became %v", r.Mint, got)
	}
}
