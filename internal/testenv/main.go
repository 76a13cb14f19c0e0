// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/go-logr/logr"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
)

// SetUp is called with the control plane before the first test. The function that it returns, if any, is called after the last test.
// It cleans up and may check what all tests together left behind.
type SetUp func(context.Context, *Environment) (after func() error, err error)

// runner is implemented by testing.M. This package does not import testing, because the demo uses it too.
type runner interface{ Run() int }

// Test is implemented by testing.T.
type Test interface {
	Helper()
	Context() context.Context
	Cleanup(func())
	Error(...any)
	Fatal(...any)
}

// ForTest starts a control plane for a single test, at whose end it stops.
func ForTest(t Test, opts ...Option) *Environment {
	t.Helper()
	env, err := Start(t.Context(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := env.Stop(); err != nil {
			t.Error(err)
		}
	})
	return env
}

// Main is the TestMain of a package whose tests share a control plane. It exits the process.
func Main(m runner, setUp SetUp, opts ...Option) {
	ctrllog.SetLogger(logr.Discard())
	code, err := runTests(m, setUp, opts)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func runTests(m runner, setUp SetUp, opts []Option) (code int, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	env, err := Start(ctx, opts...)
	if err != nil {
		cancel()
		return 1, err
	}
	defer func() {
		cancel() // an open watch would keep the API server from ending
		err = errors.Join(err, env.Stop())
	}()
	after, err := setUp(ctx, env)
	if after != nil {
		defer func() { err = errors.Join(err, after()) }()
	}
	if err != nil {
		return 1, err
	}
	return m.Run(), nil
}
