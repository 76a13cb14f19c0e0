// SPDX-License-Identifier: Apache-2.0

package controller

import "github.com/go-logr/logr"

// bodies is the level from which client-go logs what it sends and receives, Secrets included. Since it takes the logger
// from the context, that would be a logger of the operator at a high level.
const bodies = 8

// Quiet gives a logger that never shows the bodies of the API server's requests and answers, whatever its level.
func Quiet(l logr.Logger) logr.Logger {
	if l.GetSink() == nil {
		return l // it discards everything
	}
	return l.WithSink(quietSink{l.GetSink()})
}

type quietSink struct{ logr.LogSink }

func (s quietSink) Enabled(level int) bool { return level < bodies && s.LogSink.Enabled(level) }

func (s quietSink) WithValues(kv ...any) logr.LogSink { return quietSink{s.LogSink.WithValues(kv...)} }

func (s quietSink) WithName(name string) logr.LogSink { return quietSink{s.LogSink.WithName(name)} }

// WithCallDepth keeps the lines of the callers right.
func (s quietSink) WithCallDepth(depth int) logr.LogSink {
	if deeper, ok := s.LogSink.(logr.CallDepthLogSink); ok {
		return quietSink{deeper.WithCallDepth(depth)}
	}
	return s
}
