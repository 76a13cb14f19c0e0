// SPDX-License-Identifier: Apache-2.0

// Package quiet keeps the bodies of API requests out of the log.
package quiet

import "github.com/go-logr/logr"

// bodies is the level from which client-go logs the bodies of requests and answers, Secrets included. It takes its logger from
// the context, so this could be one of the operator's.
const bodies = 8

// Logger returns a logger that writes what l writes, but nothing of level bodies or above.
func Logger(l logr.Logger) logr.Logger {
	if l.GetSink() == nil {
		return l // it discards everything
	}
	return l.WithSink(sink{l.GetSink()})
}

// sink hides the levels of bodies. The loggers that are made from it hide them too.
type sink struct{ logr.LogSink }

func (s sink) Enabled(level int) bool { return level < bodies && s.LogSink.Enabled(level) }

func (s sink) WithValues(kv ...any) logr.LogSink { return sink{s.LogSink.WithValues(kv...)} }

func (s sink) WithName(name string) logr.LogSink { return sink{s.LogSink.WithName(name)} }

// WithCallDepth implements logr.CallDepthLogSink, so that a helper can log in the name of its caller.
func (s sink) WithCallDepth(depth int) logr.LogSink {
	if deeper, ok := s.LogSink.(logr.CallDepthLogSink); ok {
		return sink{deeper.WithCallDepth(depth)}
	}
	return s
}
