// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// errcodeHeading is a section about one or several errcodes: ### 40164, 61004, 45035: the address is not allowed
var errcodeHeading = regexp.MustCompile(`^### ((?:-?\d+(?:, )?)+): (.+)$`)

// TestDocsErrcodes: docs/troubleshooting.md has one section for each errcode that the client knows. It quotes what the condition
// says, and names the reason. It has no section for an errcode that the client does not know.
func TestDocsErrcodes(t *testing.T) {
	text, err := os.ReadFile("../../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := map[int]string{}
	var codes []int
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			codes = nil
			if m := errcodeHeading.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
				for word := range strings.SplitSeq(m[1], ", ") {
					code, err := strconv.Atoi(word)
					if _, twice := sections[code]; twice || err != nil {
						t.Errorf("%q: %v, twice: %v", line, err, twice)
					}
					codes = append(codes, code)
				}
			}
		}
		for _, code := range codes {
			sections[code] += line
		}
	}
	known := map[int]bool{}
	for _, o := range ticketCodes { // all codes, those of the other calls too
		known[o.code] = true
		section, ok := sections[o.code]
		if !ok {
			t.Errorf("errcode %d has no section", o.code)
			continue
		}
		// The first sentence may be shared, and the address stands in it as a placeholder.
		section = strings.Join(strings.Fields(section), " ")
		for _, want := range []string{fmt.Sprintf("`%s`", o.reason), strings.ReplaceAll(o.what, "{address}", "203.0.113.7"), o.next} {
			if o.reason == token.ReasonTokenRejected && want != o.what {
				continue // not a reason of a condition: the operator replaces the token
			}
			if !strings.Contains(section, want) {
				t.Errorf("the section on errcode %d does not have %q", o.code, want)
			}
		}
		if !strings.Contains(section, "**What to do.**") {
			t.Errorf("the section on errcode %d does not say what to do", o.code)
		}
	}
	for code := range sections {
		if !known[code] {
			t.Errorf("there is a section for errcode %d, which the client does not know", code)
		}
	}
}
