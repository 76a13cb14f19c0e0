// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"os"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// tokenAt returns a healthy resource whose token was issued at a time and lives for two hours.
func tokenAt(name, fingerprint string, issued time.Time) v1alpha1.WeChatAppToken {
	due := metav1.NewTime(issued.Add(2*time.Hour - 290*time.Second))
	t := v1alpha1.WeChatAppToken{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, CreationTimestamp: metav1.NewTime(issued)}}
	t.Spec.AppID, t.Spec.Mode = "wx0123456789abcdef", v1alpha1.ModeStable
	t.Status.Token = &v1alpha1.TokenStatus{
		Fingerprint: fingerprint, IssueTime: metav1.NewTime(issued), ExpirationTime: metav1.NewTime(issued.Add(2 * time.Hour)),
	}
	t.Status.NextRefreshTime = &due
	t.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonTokenValid}}
	return t
}

func failing(t v1alpha1.WeChatAppToken, message string) v1alpha1.WeChatAppToken {
	t = *t.DeepCopy()
	t.Status.Conditions = append(t.Status.Conditions, metav1.Condition{
		Type: v1alpha1.ConditionRefreshFailing, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonUnreachable, Message: message,
	})
	return t
}

func newTestScreen(width, height int, color bool) *screen {
	format := ""
	a := &app{terminal: terminal{IOStreams: genericiooptions.NewTestIOStreamsDiscard()}, paint: palette{on: color}}
	s := newScreen(&listOptions{app: a, print: &genericclioptions.PrintFlags{OutputFormat: &format}})
	s.size = func() (int, int) { return width, height }
	return s
}

// TestScreen checks that the table stays aligned and on the screen through changes, and that these are listed below it.
func TestScreen(t *testing.T) {
	issued := time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC)
	now := issued.Add(115 * time.Minute)
	s := newTestScreen(100, 24, false)
	s.take(news{all: []v1alpha1.WeChatAppToken{tokenAt("shop", "aa", issued), tokenAt("long-name", "bb", issued)}}, now)
	old := tokenAt("shop", "aa", issued)
	rotated := tokenAt("shop", "cc", now)
	s.take(news{changed: &rotated}, now)
	broken := failing(rotated, "WeChat cannot be reached.\x1b[2J")
	s.take(news{changed: &broken}, now.Add(time.Minute))
	s.take(news{changed: &rotated}, now.Add(2*time.Minute))
	s.take(news{gone: &rotated}, now.Add(3*time.Minute))
	s.take(news{changed: &old}, now.Add(4*time.Minute))
	got := strings.Join(s.picture(now.Add(4*time.Minute)), "\n") + "\n"
	want := `NAME        APP ID               MODE     STATE   EXPIRES IN   NEXT ATTEMPT   REASON
long-name   wx0123456789abcdef   Stable   Ready   1m00s        overdue        TokenValid
shop        wx0123456789abcdef   Stable   Ready   1m00s        overdue        TokenValid

09:55:00 UTC   shop   token replaced, 5m00s before the end of the one before
09:56:00 UTC   shop   RefreshFailing, was Ready: Unreachable: WeChat cannot be reached.^[[2J
09:57:00 UTC   shop   Ready, was RefreshFailing
09:58:00 UTC   shop   deleted
09:59:00 UTC   shop   created
`
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	s.take(news{err: failed("", "could not list: the API server is gone")}, now)
	if got := strings.Join(s.picture(now), "\n"); !strings.Contains(got, "Connection lost, trying again: could not list") {
		t.Errorf("lost connection:\n%s", got)
	}
}

// TestSmallScreen checks that no picture is larger than a small terminal, and that a cut line resets its colour.
func TestSmallScreen(t *testing.T) {
	issued := time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC)
	s := newTestScreen(40, 6, true)
	var all []v1alpha1.WeChatAppToken
	for name := range strings.SplitSeq("abcdefghij", "") {
		all = append(all, tokenAt(name, name, issued))
	}
	s.take(news{all: all}, issued)
	lines := s.picture(issued)
	if len(lines) > 5 || !strings.Contains(lines[len(lines)-1], "and 7 more") {
		t.Errorf("%d lines: %q", len(lines), lines)
	}
	for _, line := range lines[:len(lines)-1] {
		if n := len([]rune(uncolored(line))); n > 40 {
			t.Errorf("%d columns: %q", n, line)
		}
		if !strings.HasSuffix(line, "…\x1b[0m") {
			t.Errorf("a line that was cut does not say so: %q", line)
		}
	}
}

func uncolored(line string) string {
	for {
		a := strings.IndexByte(line, '\x1b')
		if a < 0 {
			return line
		}
		line = line[:a] + line[a+strings.IndexByte(line[a:], 'm')+1:]
	}
}

// TestNoColourWithoutTerminal checks that there are no escape sequences in the output to a pipe or file.
func TestNoColourWithoutTerminal(t *testing.T) {
	w := newBareWorld(t, "colour")
	file, err := os.Create(t.TempDir() + "/out")
	w.must(err)
	code := run(t.Context(), terminal{
		IOStreams: genericiooptions.IOStreams{In: strings.NewReader(""), Out: file, ErrOut: file},
		now:       time.Now, getenv: func(string) string { return "" },
	}, []string{"--kubeconfig", kubeconfig, "doctor", "-n", w.namespace})
	_, err = file.Seek(0, io.SeekStart)
	w.must(err)
	text, err := io.ReadAll(file)
	w.must(err)
	if code == exitUsage || len(text) == 0 || strings.Contains(string(text), "\x1b") {
		t.Errorf("exit code %d: %q", code, text)
	}
}
