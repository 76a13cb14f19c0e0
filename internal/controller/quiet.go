// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"slices"

	"github.com/go-logr/logr"
)

// bodies is the level from which client-go logs what it sends and receives, Secrets included. Since it takes the logger
// from the context, that would be a logger of the operator at a high level.
const bodies = 8

// Quiet gives a logger that never shows the bodies of the API server's requests and answers, whatever its level.
func Quiet(l logr.Logger) logr.Logger {
	if l.GetSink() == nil {
		return l // it discards everything
	}
	return l.WithSink(&quietSink{LogSink: l.WithCallDepth(1).GetSink()}) // Info and Error are one more call
}

// quietSink adds values only to what is logged: each pass gives its logger some, and hardly one writes a line. So they must not
// change later.
type quietSink struct {
	logr.LogSink

	values []any
}

func (s *quietSink) Enabled(level int) bool { return level < bodies && s.LogSink.Enabled(level) }

func (s *quietSink) WithValues(kv ...any) logr.LogSink {
	values := slices.Concat(s.values, kv)
	if len(kv)%2 == 1 {
		values = append(values, "(missing)") // or each later value would be taken for a key
	}
	return &quietSink{s.LogSink, values}
}

func (s *quietSink) WithName(name string) logr.LogSink {
	return &quietSink{s.LogSink.WithName(name), s.values}
}

// WithCallDepth keeps the lines of the callers right.
func (s *quietSink) WithCallDepth(depth int) logr.LogSink {
	if deeper, ok := s.LogSink.(logr.CallDepthLogSink); ok {
		return &quietSink{deeper.WithCallDepth(depth), s.values}
	}
	return s
}

func (s *quietSink) Info(level int, msg string, kv ...any) {
	s.LogSink.Info(level, msg, slices.Concat(s.values, kv)...)
}

func (s *quietSink) Error(err error, msg string, kv ...any) {
	s.LogSink.Error(err, msg, slices.Concat(s.values, kv)...)
}
