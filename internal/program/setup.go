// SPDX-License-Identifier: Apache-2.0

package program

import (
	"errors"
	"io"
	stdlog "log"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	"github.com/wechat-token-operator/wechat-token-operator/internal/plain"
	"github.com/wechat-token-operator/wechat-token-operator/internal/quiet"
)

// CleanEnvironment removes invisible characters around the environment's variables. Call it before anything reads them.
func CleanEnvironment() error {
	return errors.Join(plain.Environment(), cleanNoProxy())
}

// SetUp makes the program's log, for all libraries too, bounds its memory, and turns off core dumps.
func SetUp(options *zap.Options) logr.Logger {
	logger := quiet.Logger(zap.New(zap.UseFlagOptions(options)))
	ctrl.SetLogger(logger)
	klog.SetLogger(logger.WithName("client-go"))
	setMemory(logger)
	if err := noCoreDumps(); err != nil {
		logger.Error(err, "could not turn off core dumps")
	}
	// net/http logs here what a server sends after the end of an answer, which could be a token.
	stdlog.SetOutput(io.Discard)
	return logger
}

// Registry holds metrics and tells them. controller-runtime registers its own with one that is the process's.
type Registry interface {
	prometheus.Registerer
	prometheus.Gatherer
}
