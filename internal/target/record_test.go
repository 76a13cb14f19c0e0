// SPDX-License-Identifier: Apache-2.0

package target

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/account"
)

// annotations are those of a Secret that holds this record.
func annotations(r Record) map[string]string {
	out := maps.Collect(r.Encode())
	maps.DeleteFunc(out, func(_, v string) bool { return v == "" })
	return out
}

func full() Record {
	r := stored()
	r.OwnerUID, r.OwnerName, r.DeletionPolicy = ownUID, "shop", v1alpha1.DeletionRetain
	r.Applied = Applied{Labels: []string{"a", "b/c"}, Annotations: []string{`"<&>`}, Adopted: true}
	r.Mint = account.Mark{StartedAt: issuedAt.Add(123456789), ID: "ABCDEFGH"}
	return r
}

func TestRecordRoundTrip(t *testing.T) {
	local := full()
	local.IssuedAt, local.Mint.StartedAt = issuedAt.In(time.FixedZone("CST", 8*3600)), local.Mint.StartedAt.In(time.FixedZone("CST", 8*3600))
	for name, r := range map[string]Record{"empty": {}, "stored": stored(), "full": full()} {
		if got := DecodeRecord(annotations(r)); !reflect.DeepEqual(got, r) {
			t.Errorf("%s: %+v, want %+v", name, got, r)
		}
	}
	if got := DecodeRecord(annotations(local)); !reflect.DeepEqual(got, full()) {
		t.Errorf("another time zone: %+v", got)
	}
	fraction := full()
	fraction.IssuedAt = issuedAt.Add(999 * time.Millisecond)
	if got := DecodeRecord(annotations(fraction)); !got.IssuedAt.Equal(issuedAt) || got.Mint != full().Mint {
		t.Errorf("whole seconds, except for the mark: %+v", got)
	}
}

func TestRecordAnnotations(t *testing.T) {
	const p = "wechat.apptoken.dev/"
	want := map[string]string{
		p + "owner-uid": ownUID, p + "owner-name": "shop", p + "deletion-policy": "Retain", p + "app-id": appID, p + "mode": "Stable",
		p + "issued-at": "2026-03-01T12:00:00Z", p + "expires-at": "2026-03-01T14:00:00Z",
		p + "token-fingerprint": "1f0c3a5b7d9e2468", p + "credentials-fingerprint": "9a8b7c6d5e4f3021",
		p + "applied-metadata": `{"labels":["a","b/c"],"annotations":["\"\u003c\u0026\u003e"],"adopted":true}`,
		p + "mint-started":     "2026-03-01T12:00:00.123456789Z/ABCDEFGH",
	}
	if got := maps.Collect(full().Encode()); !maps.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	// Each key is there when there is nothing to say, so that what is left over is removed.
	empty := maps.Collect(Record{}.Encode())
	if !slices.Equal(slices.Sorted(maps.Keys(empty)), slices.Sorted(maps.Keys(want))) {
		t.Errorf("keys %v", empty)
	}
	for key, v := range empty {
		if v != "" {
			t.Errorf("%s: %q", key, v)
		}
	}
}

func TestHostileAnnotations(t *testing.T) {
	const p = "wechat.apptoken.dev/"
	far := strings.Repeat("9", 100_000)
	tests := map[string]struct {
		key    string
		values []string
	}{
		"times": {p + "issued-at", []string{
			"now", "2026-03-01", "2026-03-01T12:00:00", "2026-03-01 12:00:00Z", "1772366400", far, "\x00", "2026-13-01T12:00:00Z", "-2026-03-01T12:00:00Z",
			// In UTC these are in the years 10000 and -1, which RFC 3339 cannot write and no status can hold.
			"9999-12-31T23:59:59-23:59", "0000-01-01T00:00:00+23:59", "0000-06-01T00:00:00Z",
		}},
		"marks": {p + "mint-started", []string{"x", "/", "//", "x/y", "now/ABCDEFGH", far + "/x", "/2026-03-01T12:00:00Z"}},
		// Requests and how far they have come are no business of a Secret, which its namespace can edit.
		"revokes":   {p + "revoke", []string{"done/x/y", "2026-03-01T12:00:00Z/victim/value"}},
		"refreshes": {p + "handled-refresh", []string{"2026-03-01T12:00:00Z"}},
		"requests":  {v1alpha1.AnnotationRevokeRequestedAt, []string{"2026-03-01T12:00:00Z"}},
		"lists":     {p + "applied-metadata", []string{"{", "[]", "1", "nul", `{"labels":1}`, `{"labels":["a"],"annotations":{}}`, `{"adopted":"true"}`, strings.Repeat("[", 100_000)}},
	}
	for name, test := range tests {
		for _, v := range test.values {
			if got := DecodeRecord(map[string]string{test.key: v}); !reflect.DeepEqual(got, Record{}) {
				t.Errorf("%s: %.50q gives %+v", name, v, got)
			}
		}
	}
	if m := DecodeRecord(map[string]string{p + "mint-started": "2026-03-01T12:00:00.5Z"}).Mint; !m.StartedAt.Equal(issuedAt.Add(time.Second / 2)) {
		t.Errorf("a mark without an identity is a mark: %+v", m)
	}
}

func FuzzDecodeRecord(f *testing.F) {
	seeds := []Record{{}, stored(), full()}
	for _, r := range seeds {
		e := maps.Collect(r.Encode())
		f.Add(e[v1alpha1.AnnotationOwnerUID], e[v1alpha1.AnnotationIssuedAt], e[v1alpha1.AnnotationExpiresAt], e[v1alpha1.AnnotationAppliedMetadata],
			e[v1alpha1.AnnotationMintStarted])
	}
	f.Add("a/b", "9999-12-31T23:59:59-23:59", "0000-01-01T00:00:00+23:59", `{"labels":[]}`, "2026-03-01T12:00:00.5+08:00/x/y")
	f.Add("\xff", "2026-03-01t12:00:00z", "2026-03-01T12:00:00,5Z", `{"Labels":["\ud800"]}`, "0001-01-01T00:00:00Z/x")
	f.Fuzz(func(t *testing.T, text, issued, expires, applied, mint string) {
		hostile := DecodeRecord(map[string]string{
			v1alpha1.AnnotationOwnerUID: text, v1alpha1.AnnotationOwnerName: text, v1alpha1.AnnotationDeletionPolicy: text,
			v1alpha1.AnnotationAppID: text, v1alpha1.AnnotationMode: text, v1alpha1.AnnotationTokenFingerprint: text,
			v1alpha1.AnnotationCredentialsFingerprint: text,
			v1alpha1.AnnotationIssuedAt:               issued, v1alpha1.AnnotationExpiresAt: expires,
			v1alpha1.AnnotationAppliedMetadata: applied, v1alpha1.AnnotationMintStarted: mint,
		})
		tooLong := len(hostile.Applied.encode()) > 32<<10 // its characters may need escapes
		if r := whole(hostile); !tooLong && !reflect.DeepEqual(DecodeRecord(annotations(r)), r) {
			t.Errorf("%+v\nbecame\n%+v", r, DecodeRecord(annotations(r)))
		}
		bounded := func(longest int) string {
			if len(text) > longest {
				return ""
			}
			return text
		}
		if hostile.OwnerUID != types.UID(bounded(36)) || hostile.OwnerName != bounded(253) || hostile.TokenFingerprint != bounded(16) {
			t.Errorf("%q became %+v", text, hostile)
		}
	})
}

// whole has times as they are written, and no empty lists.
func whole(r Record) Record {
	for _, at := range []*time.Time{&r.IssuedAt, &r.ExpiresAt} {
		*at = at.Truncate(time.Second)
	}
	for _, list := range []*[]string{&r.Applied.Labels, &r.Applied.Annotations} {
		if len(*list) == 0 {
			*list = nil
		}
	}
	return r
}
