// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
)

func TestLogProblems(t *testing.T) {
	var lines []string
	now := at
	problem := LogProblems(funcr.New(func(_, args string) { lines = append(lines, args) }, funcr.Options{}), func() time.Time { return now })
	for _, after := range []time.Duration{0, 0, 9 * time.Second, time.Second} {
		now = now.Add(after)
		problem(errors.New("no answer"))
	}
	want := []string{
		`"level"=0 "msg"="a call was not answered by WeChat" "problem"="no answer" "othersSince"=0`,
		`"level"=0 "msg"="a call was not answered by WeChat" "problem"="no answer" "othersSince"=2`,
	}
	if !slices.Equal(lines, want) {
		t.Errorf("lines %q, want %q", lines, want)
	}
}
