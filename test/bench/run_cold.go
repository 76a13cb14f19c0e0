// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
)

// patienceFor is generous: a machine that is busy with other work makes a run void, not failed.
func patienceFor(n int) time.Duration { return 2*time.Minute + time.Duration(n)*50*time.Millisecond }

// measurePlain runs the plain loop on resources that nobody has served yet.
func (s *stage) measurePlain(ctx context.Context, o *observer, n int) (r result, err error) {
	m, err := s.meter(ctx)
	if err != nil {
		return result{}, err
	}
	if err := m.begin(ctx, nil); err != nil {
		return result{}, err
	}
	p, err := launch("the plain loop", filepath.Join(s.dir, "plain.log"), nil, s.self, runPlainLoop,
		"--kubeconfig", s.kubeconfig, "--wechat-endpoint", s.wechatURL, "--wechat-ca-file", s.wechatCA, "--count", strconv.Itoa(n))
	if err != nil {
		return result{}, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	if err := o.untilReady(ctx, p, n, patienceFor(n)); err != nil {
		return result{}, err
	}
	if r, err = m.end(ctx, p, runPlainLoop, n, n); err != nil {
		return result{}, err
	}
	r.Rate = rateOf(o.firstTokens(m.start))
	r.Memory, err = p.memory()
	return r, err
}

// cold starts the operator on resources that have no token yet. It leaves the operator running.
func (s *stage) cold(ctx context.Context, o *observer, run string, n, healthy int, profiles string) (result, *operator, error) {
	m, err := s.meter(ctx)
	if err != nil {
		return result{}, nil, err
	}
	if err := m.begin(ctx, nil); err != nil {
		return result{}, nil, err
	}
	p, _, err := s.launchOperator()
	if err != nil {
		return result{}, nil, err
	}
	r, err := s.measureCold(ctx, o, m, p, run, n, healthy, profiles)
	if err != nil {
		return result{}, nil, errors.Join(err, p.kill())
	}
	return r, p, nil
}

func (s *stage) measureCold(
	ctx context.Context, o *observer, m *meter, p *operator, run string, n, healthy int, profiles string,
) (result, error) {
	profiled := make(chan error, 1)
	go func() { profiled <- p.profile(ctx, profiles, run, n, max(2, n/250)) }()
	if err := o.untilReady(ctx, p.process, healthy, patienceFor(n)); err != nil {
		return result{}, err
	}
	r, err := m.end(ctx, p.process, run, n, healthy)
	if err != nil {
		return result{}, err
	}
	r.Rate = rateOf(o.firstTokens(m.start))
	r.Seconds = o.lastReady().Sub(m.start).Seconds()
	if r.Memory, err = p.settled(ctx); err != nil {
		return result{}, err
	}
	return r, <-profiled
}

// steady watches a running operator that has nothing to do but check.
func (s *stage) steady(
	ctx context.Context, o *observer, m *meter, p *operator, n int, d time.Duration, profiles string,
) (result, error) {
	if err := m.begin(ctx, p.process); err != nil {
		return result{}, err
	}
	profiled := make(chan error, 1)
	go func() { profiled <- p.profile(ctx, profiles, runSteady, n, max(1, int(d.Seconds()))) }()
	if err := errors.Join(pause(ctx, d), <-profiled); err != nil {
		return result{}, err
	}
	calls, err := s.calls(ctx)
	if err != nil {
		return result{}, err
	}
	r, err := m.end(ctx, p.process, runSteady, n, calls-m.calls)
	if err != nil {
		return result{}, err
	}
	if r.Memory, err = p.memory(); err != nil {
		return result{}, err
	}
	if written := o.writtenSince(m.start); written > 0 {
		return result{}, fmt.Errorf("%d tokens were written in a stretch in which none was due", written)
	}
	return r, nil
}

// restart starts an operator on resources that all have a valid token, until each was checked once. The operator runs on.
func (s *stage) restart(ctx context.Context, o *observer, run string, n int) (result, *operator, error) {
	m, err := s.meter(ctx)
	if err != nil {
		return result{}, nil, err
	}
	if err := m.begin(ctx, nil); err != nil {
		return result{}, nil, err
	}
	p, err := s.startOperator(ctx)
	if err != nil {
		return result{}, nil, err
	}
	ready := time.Since(m.start)
	r, err := s.measureRestart(ctx, o, m, p, run, n)
	if err != nil {
		return result{}, nil, errors.Join(err, p.kill())
	}
	r.ReadySeconds = ready.Seconds()
	return r, p, nil
}

func (s *stage) measureRestart(ctx context.Context, o *observer, m *meter, p *operator, run string, n int) (result, error) {
	if err := s.untilCalls(ctx, o, p.process, m.calls+n, refresh.FirstCheckWithin+patienceFor(n)); err != nil {
		return result{}, err
	}
	r, err := m.end(ctx, p.process, run, n, n)
	if err != nil {
		return result{}, err
	}
	if written := o.writtenSince(m.start); written > 0 {
		return result{}, fmt.Errorf("%d tokens were written by a restart in which all were valid", written)
	}
	r.Memory, err = p.settled(ctx)
	return r, err
}

// withForeign measures a restart, fills the cluster with Secrets of others, and measures the restart again.
func (s *stage) withForeign(ctx context.Context, o *observer, base result, n, foreign, size int) (result, *operator, error) {
	create := func(ctx context.Context, i int) error { return s.client.Create(ctx, foreignSecret(i, size)) }
	if err := parallel(ctx, foreign, create); err != nil {
		return result{}, nil, fmt.Errorf("creating foreign Secrets: %w", err)
	}
	r, p, err := s.restart(ctx, o, runForeign, n)
	if err != nil {
		return result{}, nil, err
	}
	r.More["foreignSecrets"] = float64(foreign)
	r.More["addedResident"] = float64(r.Memory.Resident - base.Memory.Resident)
	r.More["addedPeak"] = float64(r.Memory.Peak - base.Memory.Peak)
	return r, p, nil
}

// profile writes a CPU profile of the next seconds and a heap profile after them; an empty folder means none.
func (p *operator) profile(ctx context.Context, folder, run string, n, seconds int) error {
	if folder == "" {
		return nil
	}
	base := "http://" + p.pprof + "/debug/pprof/"
	if err := p.answers(ctx, base+"cmdline", readyPatience); err != nil {
		return err
	}
	for _, of := range []struct{ kind, query string }{
		{"cpu", fmt.Sprintf("profile?seconds=%d", seconds)}, {"heap", "heap?gc=1"}, {"allocs", "allocs"},
	} {
		file := filepath.Join(folder, fmt.Sprintf("%s-%d-%s.pb.gz", run, n, of.kind))
		if err := download(ctx, base+of.query, file, readyPatience+time.Duration(seconds)*time.Second); err != nil {
			return err
		}
	}
	return nil
}

func download(ctx context.Context, url, file string, within time.Duration) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	client := &http.Client{Timeout: within}
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("fetching a profile: %w", err)
	}
	defer res.Body.Close() //nolint:errcheck // read to its end
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		return errors.Join(fmt.Errorf("fetching a profile: %s", res.Status), err)
	}
	return os.WriteFile(file, body, 0o600)
}
