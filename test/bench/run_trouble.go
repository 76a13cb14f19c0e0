// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	apimeta "k8s.io/apimachinery/pkg/api/meta"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

const (
	// failingShare: every tenth app is refused by WeChat until somebody acts.
	failingShare = 10
	// slowAnswer is how long WeChat takes in the run of that name.
	slowAnswer = 500 * time.Millisecond
	// nobodysAddress is all that the allowlist of a failing app has.
	nobodysAddress = "203.0.113.1"
)

// failing is a cold start in which a tenth of the apps does not allow this machine's address.
func (s *stage) failing(ctx context.Context, o *observer, n int) (r result, err error) {
	refused := n / failingShare
	if err := parallel(ctx, refused, func(ctx context.Context, i int) error {
		a := appOf(i * failingShare)
		return s.wechat.SetApp(ctx, wechattest.App{ID: a.id, Secret: a.secret, AllowedIPs: []string{nobodysAddress}})
	}); err != nil {
		return result{}, err
	}
	r, p, err := s.cold(ctx, o, runFailing, n, n-refused, "")
	if err != nil {
		return result{}, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	r.More["failing"] = float64(refused)
	return r, s.mustReport(ctx, refused)
}

// mustReport checks that the refused resources say why; otherwise the run did not measure what it says.
func (s *stage) mustReport(ctx context.Context, refused int) error {
	for i := range refused {
		a, token := appOf(i*failingShare), &v1alpha1.WeChatAppToken{}
		if err := s.client.Get(ctx, a.key(), token); err != nil {
			return err
		}
		ready := apimeta.FindStatusCondition(token.Status.Conditions, v1alpha1.ConditionReady)
		if ready == nil || ready.Reason != v1alpha1.ReasonIPNotAllowed {
			return fmt.Errorf("%s is refused by WeChat, but its condition Ready is %+v", a.name, ready)
		}
	}
	return nil
}

// slow is a cold start while WeChat takes its time for each answer.
func (s *stage) slow(ctx context.Context, o *observer, n int) (r result, err error) {
	if err := s.wechat.Inject(ctx, wechattest.Fault{DelayAnswer: slowAnswer}); err != nil {
		return result{}, err
	}
	r, p, err := s.cold(ctx, o, runSlow, n, n, "")
	if err != nil {
		return result{}, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	// With so much to wait for, the limit is not the machine but the calls in flight.
	r.More["answersPerSecondInFlight"] = r.Rate * slowAnswer.Seconds()
	return r, nil
}

// failover kills the leader of two replicas while all tokens are valid, and makes a resource in the same moment. It is
// app number n.
func (s *stage) failover(ctx context.Context, o *observer, n int) (r result, err error) {
	elect := []string{"--leader-elect", "--leader-election-namespace", testenv.OperatorNamespace}
	before, err := s.calls(ctx)
	if err != nil {
		return result{}, err
	}
	leader, err := s.startOperator(ctx, elect...)
	if err != nil {
		return result{}, err
	}
	// The only one there leads once it calls. Its first checks are over before it is killed.
	if err := s.untilCalls(ctx, o, leader.process, before+n, patienceFor(n)); err != nil {
		return result{}, errors.Join(err, leader.kill())
	}
	standby, err := s.startOperator(ctx, elect...)
	if err != nil {
		return result{}, errors.Join(err, leader.kill())
	}
	defer func() { err = errors.Join(err, standby.stop()) }()
	m, err := s.meter(ctx)
	if err != nil {
		return result{}, errors.Join(err, leader.kill())
	}
	if err := errors.Join(s.addNamespaces(ctx, n+1), m.begin(ctx, standby.process)); err != nil {
		return result{}, errors.Join(err, leader.kill())
	}
	killed := time.Now()
	if err := errors.Join(leader.kill(), s.add(ctx, appOf(n), defaultInterval)); err != nil {
		return result{}, err
	}
	return s.measureFailover(ctx, o, m, standby, n, killed)
}

func (s *stage) measureFailover(ctx context.Context, o *observer, m *meter, p *operator, n int, killed time.Time) (result, error) {
	if err := o.untilReady(ctx, p.process, n+1, patienceFor(n)); err != nil {
		return result{}, err
	}
	served := o.lastReady().Sub(killed)
	// All first checks of the new leader must be seen before it can be said that there were no others.
	if err := s.untilCalls(ctx, o, p.process, m.calls+n+1, patienceFor(n)); err != nil {
		return result{}, err
	}
	r, err := m.end(ctx, p.process, runFailover, n, n+1)
	if err != nil {
		return result{}, err
	}
	r.Seconds = served.Seconds()
	ledger, err := s.readLedger(ctx)
	if err != nil {
		return result{}, err
	}
	for _, calls := range ledger.calls {
		r.More["unscheduledCalls"] += float64(max(0, callsSince(calls, killed)-1))
	}
	r.Memory, err = p.memory()
	return r, err
}

func callsSince(calls []wechattest.Call, since time.Time) int {
	n := 0
	for _, c := range calls {
		if !c.At.Before(since) {
			n++
		}
	}
	return n
}
