// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// meter measures a process over a stretch of time.
type meter struct {
	stage  *stage
	api    apiServer
	quiet  counts
	start  time.Time
	before look
	cpu    time.Duration
	calls  int
}

// meter learns the API server's noise, so call it while no operator runs. Then begin starts the measurement.
func (s *stage) meter(ctx context.Context) (*meter, error) {
	clients, err := kubernetes.NewForConfig(s.rest)
	if err != nil {
		return nil, err
	}
	m := &meter{stage: s, api: apiServer{client: clients, own: s.own}}
	m.quiet, err = m.api.noise(ctx)
	return m, err
}

// begin starts a stretch; p is nil when the process starts with it.
func (m *meter) begin(ctx context.Context, p *process) (err error) {
	if m.calls, err = m.stage.calls(ctx); err != nil {
		return err
	}
	if m.before, err = m.api.look(ctx); err != nil {
		return err
	}
	m.cpu = 0
	if p != nil {
		if m.cpu, err = p.cpu(); err != nil {
			return err
		}
	}
	m.start = time.Now()
	return nil
}

// end gives what was measured since begin; tokens is what "per token" divides by.
func (m *meter) end(ctx context.Context, p *process, run string, n, tokens int) (result, error) {
	seconds := time.Since(m.start).Seconds()
	cpu, err := p.cpu()
	if err != nil {
		return result{}, err
	}
	after, err := m.api.look(ctx)
	if err != nil {
		return result{}, err
	}
	calls, err := m.stage.calls(ctx)
	if err != nil {
		return result{}, err
	}
	r := result{Run: run, N: n, Tokens: tokens, Seconds: seconds, Calls: calls - m.calls, More: map[string]float64{}}
	if tokens > 0 {
		r.CPU = (cpu - m.cpu).Seconds() * 1000 / float64(tokens)
		r.Requests = between(m.before, after, m.quiet).per(tokens)
		r.RequestSum = r.Requests.sum()
	}
	return r, nil
}

// calls counts the calls for Stable tokens so far.
func (s *stage) calls(ctx context.Context) (int, error) {
	return s.wechat.Count(ctx, wechattest.Filter{Endpoint: wechattest.EndpointStable})
}

// untilCalls waits for as many calls in all.
func (s *stage) untilCalls(ctx context.Context, o *observer, p *process, total int, within time.Duration) error {
	var failed error
	err := o.until(ctx, p, within, "all resources were checked", func() bool {
		calls, err := s.calls(ctx)
		failed = err
		return err != nil || calls >= total
	})
	if failed != nil {
		return failed
	}
	return err
}
