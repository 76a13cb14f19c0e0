// SPDX-License-Identifier: Apache-2.0

package program

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr/funcr"
	"k8s.io/client-go/features"
)

// The log tells of each reason once, and when it is over.
func TestCAWatch(t *testing.T) {
	type answer struct {
		changed bool
		err     error
	}
	missing, damaged := errors.New("no such file"), errors.New("was cut")
	for name, tt := range map[string]struct {
		answers []answer
		logged  []string
	}{
		"nothing happens":      {[]answer{{}, {}, {}}, nil},
		"it changes":           {[]answer{{}, {true, nil}, {}}, []string{"has changed"}},
		"it is missing":        {[]answer{{false, missing}, {false, missing}, {false, missing}}, []string{"no such file"}},
		"and comes back":       {[]answer{{false, missing}, {}, {}, {false, missing}}, []string{"no such file", "has not changed", "no such file"}},
		"and is another":       {[]answer{{false, missing}, {true, nil}, {}}, []string{"no such file", "has changed"}},
		"two kinds of trouble": {[]answer{{false, missing}, {false, damaged}, {false, damaged}}, []string{"no such file", "was cut"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var lines []string
				reads := 0
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(len(tt.answers))*caInterval+time.Second)
				defer cancel()
				w := CAWatch{
					Flag: "--some-ca-file",
					Log:  funcr.New(func(_, args string) { lines = append(lines, args) }, funcr.Options{}),
					Reload: func() (bool, error) {
						reads++
						return tt.answers[reads-1].changed, tt.answers[reads-1].err
					},
				}
				if err := w.Start(ctx); err != nil || reads != len(tt.answers) || w.NeedLeaderElection() {
					t.Errorf("%d reads, %v", reads, err)
				}
				if len(lines) != len(tt.logged) {
					t.Fatalf("logged %q, want %q", lines, tt.logged)
				}
				for i, line := range lines {
					if !strings.Contains(line, tt.logged[i]) || !strings.Contains(line, "--some-ca-file") {
						t.Errorf("logged %q, want %q", line, tt.logged[i])
					}
				}
			})
		})
	}
}

// client-go reads the API server's certificate authority again, which is a file in a pod, unless somebody turns it off.
func TestCAOfTheAPIServer(t *testing.T) {
	if !features.FeatureGates().Enabled(features.ClientsAllowCARotation) {
		t.Error("client-go does not read the API server's certificate authority again")
	}
}
