// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// allRuns in the order in which they are made. Those from cold to failover share a control plane; the others have one
// of their own.
var allRuns = []string{runCold, runSteady, runRestart, runForeign, runTenant, runFailover, runRotation, runBurst, runFailing, runSlow}

// largestPlain: with more resources the plain loop takes longer and tells nothing new. The nearest size counts then.
const largestPlain = 10_000

// tokenLife is WeChat's, for runs that are not about rotation.
const tokenLife = 2 * time.Hour

// singleRun measures n resources that nobody has served yet.
type singleRun func(*stage, context.Context, *observer, int) (result, error)

// bench makes the runs.
type bench struct {
	options

	report *report
	log    io.Writer
	start  time.Time
}

func (b *bench) wants(run string) bool { return slices.Contains(b.runs, run) }

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.log, "%6.1f s  %s\n", time.Since(b.start).Seconds(), fmt.Sprintf(format, args...))
}

func (b *bench) add(r result) {
	b.say("%s/%d: %.1f s, %.0f tokens/s, %.2f ms CPU and %.3f API requests per token, %d WeChat calls, %.0f MiB", r.Run, r.N,
		r.Seconds, r.Rate, r.CPU, r.RequestSum, r.Calls, float64(r.Memory.Resident)/mebibyte)
	b.report.Results = append(b.report.Results, r)
}

// measure makes all runs that are wanted. What was measured before an error stays in the report.
func (b *bench) measure(ctx context.Context) error {
	smallest, largest := b.sizes[0], b.sizes[len(b.sizes)-1]
	for _, n := range b.sizes {
		if n <= largestPlain || n == smallest {
			if err := b.alone(ctx, tokenLife, n, (*stage).measurePlain); err != nil {
				return fmt.Errorf("the plain loop at N = %d: %w", n, err)
			}
		}
		if err := b.story(ctx, n, n == smallest); err != nil {
			return fmt.Errorf("cold start and what follows at N = %d: %w", n, err)
		}
	}
	plain := closest(plainOf(b.report.Results), largest)
	rotated, burst := rotationOf(largest, plain), burstOf(largest, plain)
	for _, own := range []struct {
		run  string
		n    int
		life time.Duration
		make singleRun
	}{
		{runRotation, largest, rotated.life(), rotated.measure},
		{runBurst, largest, burst.life(), burst.measure},
		{runFailing, largest, tokenLife, (*stage).failing},
		{runSlow, smallest, tokenLife, (*stage).slow},
	} {
		if !b.wants(own.run) {
			continue
		}
		if err := b.alone(ctx, own.life, own.n, own.make); err != nil {
			return fmt.Errorf("%s at N = %d: %w", own.run, own.n, err)
		}
	}
	return nil
}

// onStage sets up a control plane with n resources that nobody has served yet.
func (b *bench) onStage(ctx context.Context, life time.Duration, n int, run func(*stage, *observer) error) (err error) {
	s, err := newStage(ctx, b.programs, b.dir, stageOptions{etcdQuota: b.etcdQuota, life: life})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.populate(ctx, n); err != nil {
		return err
	}
	o, err := s.observe(ctx)
	if err != nil {
		return err
	}
	defer o.stop()
	return run(s, o)
}

// alone makes a run on a control plane of its own.
func (b *bench) alone(ctx context.Context, life time.Duration, n int, run singleRun) error {
	return b.onStage(ctx, life, n, func(s *stage, o *observer) error {
		r, err := run(s, ctx, o, n)
		if err != nil {
			return err
		}
		b.add(r)
		return nil
	})
}

// story makes the runs that follow each other on one control plane. Each of its steps ends with the operator stopped or
// hands it to the next.
func (b *bench) story(ctx context.Context, n int, first bool) error {
	if !b.wants(runCold) {
		return nil
	}
	return b.onStage(ctx, tokenLife, n, func(s *stage, o *observer) error {
		if err := b.coldAndSteady(ctx, s, o, n); err != nil {
			return err
		}
		if err := b.restartAndForeign(ctx, s, o, n, first); err != nil || !first || !b.wants(runFailover) {
			return err
		}
		r, err := s.failover(ctx, o, n)
		if err != nil {
			return fmt.Errorf("failover: %w", err)
		}
		b.add(r)
		return nil
	})
}

func (b *bench) coldAndSteady(ctx context.Context, s *stage, o *observer, n int) (err error) {
	m, err := s.meter(ctx) // before the operator runs, for the steady state
	if err != nil {
		return err
	}
	r, p, err := s.cold(ctx, o, runCold, n, n, b.profiles)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	b.add(r)
	if !b.wants(runSteady) {
		return nil
	}
	if r, err = s.steady(ctx, o, m, p, n, b.steady, b.profiles); err != nil {
		return fmt.Errorf("steady state: %w", err)
	}
	b.add(r)
	return nil
}

func (b *bench) restartAndForeign(ctx context.Context, s *stage, o *observer, n int, first bool) error {
	if !b.wants(runRestart) {
		return nil
	}
	base, p, err := s.restart(ctx, o, runRestart, n)
	if err != nil {
		return fmt.Errorf("restart: %w", err)
	}
	b.add(base)
	if err := p.stop(); err != nil || !first {
		return err
	}
	if b.wants(runForeign) {
		if err := b.foreignSecrets(ctx, s, o, base, n); err != nil {
			return fmt.Errorf("foreign Secrets: %w", err)
		}
	}
	if !b.wants(runTenant) {
		return nil
	}
	r, err := s.attacked(ctx, o, base, n)
	if err != nil {
		return fmt.Errorf("a hostile tenant: %w", err)
	}
	b.add(r)
	return nil
}

func (b *bench) foreignSecrets(ctx context.Context, s *stage, o *observer, base result, n int) error {
	r, p, err := s.withForeign(ctx, o, base, n, b.foreign, b.foreignSize)
	if err != nil {
		return err
	}
	b.add(r)
	return p.stop()
}
