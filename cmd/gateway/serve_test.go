// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/onsi/gomega"

	"github.com/wechat-token-operator/wechat-token-operator/internal/program"
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
)

// drained is a service that was told to stop while a call was under way.
type drained struct {
	*service

	address, probes string
	stop            context.CancelFunc
	ended           chan error
	// release lets the calls of /slow end, and onStuck serves those of /stuck.
	release chan struct{}
	onStuck func(*http.Request)
}

func startService(t *testing.T, ready func(*http.Request) error) *drained {
	t.Helper()
	d := &drained{service: newService(logr.Discard(), ready), ended: make(chan error, 1), release: make(chan struct{})}
	d.drainTime, d.shutdownTimeout = 500*time.Millisecond, 2*time.Second
	for _, address := range []*string{&d.address, &d.probes} {
		var err error
		if *address, err = testenv.FreeAddress(); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	d.stop = stop
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/slow":
			<-d.release
		case "/stuck":
			d.onStuck(r)
		}
		_, _ = io.WriteString(w, "done")
	})
	if err := errors.Join(
		d.listen(ctx, d.address, nil, handler),
		d.listenBeside(ctx, "probes", d.probes, nil, program.Probes(d.readiness)),
		d.listenBeside(ctx, "nothing", "0", nil, nil),
	); err != nil {
		t.Fatal(err)
	}
	go func() { d.ended <- d.run(ctx) }()
	t.Cleanup(stop)
	return d
}

// get asks for a path on a connection of its own.
func (d *drained) get(address, path string) (body string, closes bool, err error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return "", false, err
	}
	defer c.Close() //nolint:errcheck // nothing follows
	if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return "", false, err
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return "", false, err
	}
	defer res.Body.Close() //nolint:errcheck // it is read
	text, err := io.ReadAll(res.Body)
	return string(text), res.Close, err
}

// A gateway that stops is not ready, serves new calls meanwhile on connections that end, and lets those under way end.
func TestDrain(t *testing.T) {
	g := gomega.NewWithT(t)
	d := startService(t, func(*http.Request) error { return nil })
	body, closes, err := d.get(d.address, "/")
	if body != "done" || closes || err != nil {
		t.Fatalf("before: %q, closes %t, %v", body, closes, err)
	}
	slow := make(chan string, 1)
	go func() {
		body, _, _ := d.get(d.address, "/slow")
		slow <- body
	}()
	time.Sleep(50 * time.Millisecond) // until it is under way
	d.stop()
	g.Eventually(func() string { body, _, _ := d.get(d.probes, "/readyz"); return body }).Should(gomega.ContainSubstring("caches"))
	if body, closes, err := d.get(d.address, "/"); body != "done" || !closes || err != nil {
		t.Errorf("meanwhile: %q, closes %t, %v", body, closes, err)
	}
	if body, _, err := d.get(d.probes, "/healthz"); body != "ok" || err != nil {
		t.Errorf("it is to be restarted: %q, %v", body, err)
	}
	g.Eventually(func() error { _, _, err := d.get(d.address, "/"); return err }, "5s").Should(gomega.HaveOccurred())
	close(d.release)
	if body := <-slow; body != "done" {
		t.Errorf("the call under way was answered %q", body)
	}
	if err := <-d.ended; err != nil {
		t.Error(err)
	}
}

// breaksOff checks that the service ends, and that it could not wait for all.
func (d *drained) breaksOff(t *testing.T) {
	t.Helper()
	select {
	case err := <-d.ended:
		if err == nil || !strings.Contains(err.Error(), "broken off") {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it waits for ever")
	}
}

// A call that does not end is broken off in time, and one replica that nobody calls ends at once.
func TestDrainInTime(t *testing.T) {
	d := startService(t, func(*http.Request) error { return nil })
	defer close(d.release)
	go func() { _, _, _ = d.get(d.address, "/slow") }()
	time.Sleep(50 * time.Millisecond) // until it is under way
	d.stop()
	d.breaksOff(t)
	idle := startService(t, func(*http.Request) error { return errors.New("the API server is away") })
	idle.drainTime = time.Hour
	idle.stop()
	select {
	case err := <-idle.ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("a replica that was never ready drains")
	}
}

// A client that reads nothing, not even that its connection ends, does not hold up the end.
func TestShutdownHeldUp(t *testing.T) {
	d := startService(t, func(*http.Request) error { return nil })
	held := make(chan struct{})
	defer close(held)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d.main = &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: time.Second}
	d.start(d.main, stubborn{l, held}, func() {})
	time.Sleep(50 * time.Millisecond) // until it listens
	d.stop()
	d.breaksOff(t)
}

// stubborn is a listener that does not close for as long as it is held.
type stubborn struct {
	net.Listener
	held chan struct{}
}

func (s stubborn) Close() error {
	<-s.held
	return s.Listener.Close()
}

// A call that is broken off ends, and so has its line in the audit log, before the service does.
func TestBrokenOff(t *testing.T) {
	d := startService(t, func(*http.Request) error { return nil })
	var ended atomic.Bool
	d.onStuck = func(r *http.Request) {
		<-r.Context().Done()
		time.Sleep(100 * time.Millisecond)
		ended.Store(true)
	}
	// Nobody reads the rest of the body, so nobody notices that the connection is closed.
	c, err := net.Dial("tcp", d.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_, _ = io.WriteString(c, "POST /stuck HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nx")
	time.Sleep(50 * time.Millisecond) // until it is under way
	d.stop()
	if err := <-d.ended; err == nil || !ended.Load() {
		t.Errorf("%v; the call has ended: %t", err, ended.Load())
	}
}

// An address that is taken is told at the start.
func TestAddressInUse(t *testing.T) {
	d := startService(t, func(*http.Request) error { return nil })
	other := newService(logr.Discard(), nil)
	if err := other.listen(t.Context(), d.address, nil, nil); err == nil {
		t.Error("two servers listen at one address")
	}
}

// TestRollout replaces one of two gateways under load. Callers keep their connections, and the network goes on to send new ones to the
// old gateway for a while. No call is lost, although none can be sent again.
func TestRollout(t *testing.T) {
	always := func(*http.Request) error { return nil }
	first, second := startService(t, always), startService(t, always)
	var gone atomic.Bool // the network knows that the first one is gone
	var dials atomic.Int64
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		address := second.address
		if dials.Add(1)%2 == 0 && !gone.Load() {
			address = first.address
		}
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	var callers sync.WaitGroup
	var served, lost atomic.Int64
	ctx, end := context.WithCancel(t.Context())
	for range 8 {
		callers.Go(func() {
			client := &http.Client{Transport: &http.Transport{DialContext: dial}}
			defer client.CloseIdleConnections()
			for ctx.Err() == nil {
				body := io.NopCloser(strings.NewReader("{}")) // cannot be read a second time
				req, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodPost, "http://gateway/", body)
				if err != nil {
					t.Error(err)
					return
				}
				req.ContentLength = 2
				res, err := client.Do(req)
				if err != nil {
					lost.Add(1)
					continue
				}
				_, _ = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
				served.Add(1)
				time.Sleep(time.Millisecond)
			}
		})
	}
	time.Sleep(100 * time.Millisecond)
	first.stop()
	time.Sleep(first.drainTime / 2)
	gone.Store(true)
	if err := <-first.ended; err != nil {
		t.Error(err)
	}
	time.Sleep(100 * time.Millisecond)
	end()
	callers.Wait()
	if lost.Load() != 0 || served.Load() < 100 {
		t.Errorf("%d calls were lost, %d served", lost.Load(), served.Load())
	}
}
