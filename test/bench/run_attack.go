// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// What one tenant makes: as many Secrets, each with as many labels, so that it is about as large as etcd takes.
const (
	hostileSecrets = 150
	hostileLabels  = 9000
)

// What a neighbour without a login opens: as many connections to the probes, each with that much of headers.
const (
	hostileConnections = 30
	hostileHeader      = 1 << 20
)

// hostileSecret is a Secret that looks like a target, and is as large as the API server takes.
func hostileSecret(i int) *corev1.Secret {
	labels := map[string]string{v1alpha1.LabelManagedBy: v1alpha1.ManagedByValue}
	for n := range hostileLabels {
		labels[fmt.Sprintf("%s.example.com/label-%06d", strings.Repeat("x", 60), n)] = strings.Repeat("y", 60)
	}
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Name: fmt.Sprintf("hostile-%06d", i), Namespace: appOf(i % appsPerNamespace).namespace, Labels: labels,
			Annotations: map[string]string{v1alpha1.AnnotationOwnerName: strings.Repeat("z", 200_000)},
		},
	}
}

// attacked measures what a tenant and a neighbour can make the operator's memory do: while the Secrets are made, while the connections
// are open, and when it starts over the Secrets. base is the same restart without them.
func (s *stage) attacked(ctx context.Context, o *observer, base result, n int) (result, error) {
	r, p, err := s.restart(ctx, o, runTenant, n)
	if err != nil {
		return result{}, err
	}
	before := r.Memory
	create := func(ctx context.Context, i int) error { return s.client.Create(ctx, hostileSecret(i)) }
	if err := parallel(ctx, hostileSecrets, create); err != nil {
		return result{}, errors.Join(fmt.Errorf("creating the Secrets of a tenant: %w", err), p.kill())
	}
	made, err := p.settled(ctx)
	if err != nil {
		return result{}, errors.Join(err, p.kill())
	}
	headers, err := p.underHeaders(ctx)
	if err = errors.Join(err, p.stop()); err != nil {
		return result{}, err
	}
	r, p, err = s.restart(ctx, o, runTenant, n)
	if err != nil {
		return result{}, err
	}
	r.More["hostileSecrets"] = hostileSecrets
	r.More["addedWhile"] = float64(made.Peak - before.Peak)
	r.More["addedBySecrets"] = float64(made.Resident - before.Resident)
	r.More["addedByHeaders"] = float64(headers - made.Resident)
	r.More["addedPeak"] = float64(r.Memory.Peak - base.Memory.Peak)
	return r, p.stop()
}

// underHeaders opens connections to the probes and sends headers until nobody takes more. It returns the largest resident memory that was
// seen meanwhile.
func (p *operator) underHeaders(ctx context.Context) (resident int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for range hostileConnections {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.probes)
		if err != nil {
			return 0, fmt.Errorf("connecting to the probes: %w", err)
		}
		defer c.Close() //nolint:errcheck // nothing is read
		go func() {
			_, _ = fmt.Fprintf(c, "GET /readyz HTTP/1.1\r\nHost: x\r\nX-Long: %s", strings.Repeat("x", hostileHeader))
		}()
	}
	for {
		m, err := p.memory()
		if err != nil {
			return 0, err
		}
		resident = max(resident, m.Resident)
		select {
		case <-ctx.Done():
			return resident, nil
		case <-time.After(50 * time.Millisecond):
		}
	}
}
