// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"strings"
	"testing"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
	vocab "github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// The table of conditions, row by row, as documented.
func TestJudge(t *testing.T) {
	const (
		ready, unready = true, false
		reconciling    = v1alpha1.ConditionReconciling
		stalled        = v1alpha1.ConditionStalled
	)
	own := target.Ownership{Claim: target.Own}
	conflict := target.Ownership{Claim: target.Conflict, Message: "it is somebody's"}
	terminating := target.Ownership{Claim: target.Terminating, Message: "it waits"}
	failed := func(reason vocab.Reason) *v1alpha1.RefreshError {
		return &v1alpha1.RefreshError{Reason: string(reason), Message: "what happened"}
	}
	for name, tc := range map[string]struct {
		s        situation
		ready    bool
		reason   string
		progress string
		failing  string
		says     string
	}{
		"valid token":                        {situation{valid: true}, ready, "TokenValid", "", "", "valid until"},
		"nothing yet":                        {situation{}, unready, "TokenNotIssued", reconciling, "", "no valid token"},
		"expired":                            {situation{had: true}, unready, "TokenExpired", reconciling, "", "no valid token"},
		"no credentials":                     {situation{problem: "CredentialsNotFound", problemMessage: "make it"}, unready, "CredentialsNotFound", reconciling, "CredentialsNotFound", "make it"},
		"malformed credentials":              {situation{problem: "CredentialsMalformed", problemMessage: "copy it"}, unready, "CredentialsMalformed", stalled, "CredentialsMalformed", "copy it"},
		"no credentials, valid token":        {situation{valid: true, problem: "CredentialsNotFound", problemMessage: "make it"}, ready, "TokenValid", "", "CredentialsNotFound", "make it"},
		"malformed credentials, valid token": {situation{valid: true, problem: "CredentialsMalformed", problemMessage: "copy it"}, ready, "TokenValid", "", "CredentialsMalformed", "copy it"},
		"transient, valid token":             {situation{valid: true, reported: failed("Unreachable"), class: vocab.Transient}, ready, "TokenValid", "", "Unreachable", "valid until"},
		"limited, valid token":               {situation{valid: true, reported: failed("RateLimited"), class: vocab.Limited}, ready, "TokenValid", "", "RateLimited", "valid until"},
		"transient":                          {situation{reported: failed("Unreachable"), class: vocab.Transient}, unready, "Unreachable", reconciling, "Unreachable", "what happened"},
		"limited":                            {situation{reported: failed("RateLimited"), class: vocab.Limited}, unready, "RateLimited", reconciling, "RateLimited", "what happened"},
		"action, valid token":                {situation{valid: true, reported: failed("IPNotAllowed"), class: vocab.Action}, ready, "TokenValid", "", "IPNotAllowed", "what happened"},
		"action":                             {situation{reported: failed("IPNotAllowed"), class: vocab.Action}, unready, "IPNotAllowed", stalled, "IPNotAllowed", "what happened"},
		"conflict":                           {situation{ownership: conflict}, unready, "TargetConflict", stalled, "", "somebody's"},
		"conflict, though the data would be good": {situation{valid: true, ownership: conflict}, unready, "TargetConflict", stalled, "", "somebody's"},
		"waiting for collection":                  {situation{ownership: terminating}, unready, "TargetTerminating", reconciling, "", "waits"},
		"suspended, valid token":                  {situation{valid: true, suspended: true}, ready, "TokenValid", "", "", "suspended"},
		"suspended, expired":                      {situation{had: true, suspended: true}, unready, "TokenExpired", "", "", "suspended"},
		"contested":                               {situation{had: true, contested: true}, unready, "TargetContested", reconciling, "", "keeps changing"},
		"contested, but right at this moment":     {situation{valid: true, contested: true}, ready, "TokenValid", "", "", "valid until"},
		"waiting for the account's fetcher":       {situation{waiting: true}, unready, "TokenNotIssued", reconciling, "", "another WeChatAppToken"},
		"one more thing to know":                  {situation{valid: true, note: "by the way"}, ready, "TokenValid", "", "", "by the way"},
	} {
		t.Run(name, func(t *testing.T) {
			s := tc.s
			s.secret, s.expiresAt = "shop", time.Unix(0, 0)
			if s.ownership == (target.Ownership{}) {
				s.ownership = own
			}
			v := s.judge()
			if v.ready != tc.ready || v.reason != tc.reason || v.progress != tc.progress || v.failing != tc.failing {
				t.Errorf("got ready %t %s, progress %q, failing %q", v.ready, v.reason, v.progress, v.failing)
			}
			if !strings.Contains(v.message, tc.says) {
				t.Errorf("the message is %q", v.message)
			}
			// kstatus calls Stalled failed whatever Ready says.
			if v.ready && v.progress != "" {
				t.Error("Ready and not done at once")
			}
		})
	}
}
