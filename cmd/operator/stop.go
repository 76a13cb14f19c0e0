// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/wechat-token-operator/wechat-token-operator/internal/kube"
)

const (
	// shutdownTimeout is how long the manager waits for the passes that are under way. It leaves room for a Legacy mint, which may
	// take 10 s and must not be lost, and for the write of its token, which may take kube.AnswerWithin.
	shutdownTimeout = 10*time.Second + kube.AnswerWithin
	// shutdownMargin is the time that the manager may take after that, for example to release its Lease. Together they leave some of the
	// 30 s that a pod has by default.
	shutdownMargin = 2 * time.Second
	// idleShutdownTimeout is how long a process that has not begun any pass may take to end.
	idleShutdownTimeout = 3 * time.Second
)

// starter is the part of manager.Manager that serve uses.
type starter interface {
	Add(manager.Runnable) error
	Start(context.Context) error
}

// serve runs the manager until ctx ends, and then returns within shutdownTimeout and shutdownMargin, whether the manager has ended or
// not. Its Start does not return before its caches are filled, even after ctx has ended, and they may never be filled.
func serve(ctx context.Context, mgr starter, logger logr.Logger) error {
	// The manager starts this runnable together with the controller: after the caches are filled, and only in the leader.
	working := make(chan struct{})
	err := mgr.Add(manager.RunnableFunc(func(context.Context) error {
		close(working)
		return nil
	}))
	if err != nil {
		return fmt.Errorf("adding to the manager: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-ended:
		return err
	case <-time.After(idleShutdownTimeout):
	}
	select {
	case <-working:
	default:
		logger.Info("stopped without waiting for the manager, because no work had begun")
		return nil
	}
	select {
	case err := <-ended:
		return err
	case <-time.After(shutdownTimeout + shutdownMargin - idleShutdownTimeout):
		return fmt.Errorf("the manager did not end within %s", shutdownTimeout+shutdownMargin)
	}
}
