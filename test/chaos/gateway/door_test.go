// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

const (
	anyPort = "127.0.0.1:0"
	// probeInterval is how often the balancer asks its replicas whether they are ready.
	probeInterval = 500 * time.Millisecond
	// probeTimeout is how long an answer may take. It is generous, because the machine of the test may be busy.
	probeTimeout = 3 * time.Second
	// quiet is how long nothing passes on a connection on which no answer is awaited before a host that goes down closes it.
	quiet = 10 * time.Millisecond
)

// door passes TCP connections on: as the Service in front of the gateway's replicas, or as one of WeChat's hosts.
type door struct {
	address string
	// choose returns where a new connection goes, or nil if there is nobody.
	choose func() *backend

	mu       sync.Mutex
	listener net.Listener
	links    map[*link]struct{}
	// silent is closed when a host that hangs does so no longer. It is nil for one that does not hang.
	silent chan struct{}
	// refused counts the connections that were sent to a process that had ended, nobody those for which there was no replica, and
	// late the pieces of a request that came on a connection after its end.
	refused, nobody, late int
}

// backend is a process that a door leads to.
type backend struct {
	*process

	address, probes string
	ready           bool
}

// link is one connection through a door.
type link struct {
	in, out net.Conn
	to      *backend
	// waiting reports whether the last bytes came from the caller, so that an answer is awaited.
	waiting bool
	ended   bool
	last    time.Time
}

// newDoor opens a door at a free port.
func newDoor(t *testing.T, choose func() *backend) *door {
	t.Helper()
	d := &door{address: anyPort, choose: choose, links: map[*link]struct{}{}}
	if err := d.open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.refuse()
		d.cut()
	})
	return d
}

// url is where programs reach the door.
func (d *door) url() string { return "http://" + d.address }

// open lets connections in, at the same port as before.
func (d *door) open() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.silent != nil {
		close(d.silent)
		d.silent = nil
	}
	if d.listener != nil {
		return nil
	}
	l, err := net.Listen("tcp", d.address)
	if err != nil {
		return err
	}
	d.listener = l
	if d.address == anyPort {
		d.address = l.Addr().String()
	}
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go d.join(in)
		}
	}()
	return nil
}

// refuse lets no new connection in.
func (d *door) refuse() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.listener != nil {
		_ = d.listener.Close()
		d.listener = nil
	}
}

// hang takes new connections and answers nothing on them until open is called.
func (d *door) hang() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.silent == nil {
		d.silent = make(chan struct{})
	}
}

// cut ends all connections at once, whatever they carry.
func (d *door) cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for l := range d.links {
		l.ended = true
		_, _ = l.in.Close(), l.out.Close()
	}
}

// drain ends each connection as soon as no answer is awaited on it, as a server does that stops in order.
func (d *door) drain() {
	for d.endQuiet() > 0 {
		time.Sleep(quiet / 4)
	}
	time.Sleep(20 * quiet) // for callers that had not noticed it
}

// endQuiet ends the connections that are quiet and returns how many are left.
func (d *door) endQuiet() (left int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for l := range d.links {
		switch {
		case l.ended:
		case !l.waiting && time.Since(l.last) > quiet:
			d.end(l)
		default:
			left++
		}
	}
	return left
}

// end tells the caller that nothing comes any more, and goes on to count what it sends nevertheless.
func (d *door) end(l *link) {
	l.ended = true
	_ = l.out.Close()
	if half, ok := l.in.(*net.TCPConn); ok {
		_ = half.CloseWrite()
	}
	_ = l.in.SetReadDeadline(time.Now().Add(2 * time.Second))
}

// kill kills a process and returns how many connections to it awaited an answer at that moment. Nothing passes the door meanwhile.
func (d *door) kill(b *backend) (inFlight int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for l := range d.links {
		if l.to == b && l.waiting && !l.ended {
			inFlight++
		}
	}
	b.kill()
	for l := range d.links {
		if l.to == b && !l.ended {
			d.end(l)
		}
	}
	return inFlight
}

// lost returns how many connections and pieces of requests were sent to processes that had ended, or to nobody.
func (d *door) lost() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.refused + d.late + d.nobody
}

func (d *door) join(in net.Conn) {
	d.mu.Lock()
	silent := d.silent
	d.mu.Unlock()
	if silent != nil {
		<-silent
		_ = in.Close()
		return
	}
	to := d.choose()
	if to == nil {
		d.count(&d.nobody)
		_ = in.Close()
		return
	}
	out, err := net.Dial("tcp", to.address)
	if err != nil {
		d.count(&d.refused)
		_ = in.Close()
		return
	}
	l := &link{in: in, out: out, to: to, last: time.Now()}
	d.mu.Lock()
	d.links[l] = struct{}{}
	d.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.answers(l)
	}()
	d.requests(l)
	<-done
	_ = in.Close()
	d.mu.Lock()
	delete(d.links, l)
	d.mu.Unlock()
}

func (d *door) count(n *int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	*n++
}

// requests passes on what a caller sends, until it sends no more.
func (d *door) requests(l *link) {
	defer func() { _ = l.out.Close() }()
	buffer := make([]byte, 64<<10)
	for {
		n, err := l.in.Read(buffer)
		if n > 0 {
			d.mu.Lock()
			l.waiting, l.last = true, time.Now()
			if l.ended {
				d.late++
			} else {
				_, _ = l.out.Write(buffer[:n])
			}
			d.mu.Unlock()
		}
		if err != nil {
			return
		}
	}
}

// answers passes on what comes back, until nothing comes any more.
func (d *door) answers(l *link) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := l.out.Read(buffer)
		if n > 0 {
			_, _ = l.in.Write(buffer[:n])
			d.mu.Lock()
			l.waiting, l.last = false, time.Now()
			d.mu.Unlock()
		}
		if err != nil {
			d.mu.Lock()
			if !l.ended {
				d.end(l)
			}
			d.mu.Unlock()
			return
		}
	}
}

// balancer stands for the Service: a new connection goes to one of the replicas that were ready when they were last asked, in turn. A
// connection that such a replica refuses is not sent to another one, as a Service does not do that either.
type balancer struct {
	*door

	mu       sync.Mutex
	replicas []*backend
	next     int
}

func newBalancer(t *testing.T) *balancer {
	t.Helper()
	b := &balancer{}
	b.door = newDoor(t, b.pick)
	return b
}

func (b *balancer) pick() *backend {
	b.mu.Lock()
	defer b.mu.Unlock()
	for range b.replicas {
		b.next = (b.next + 1) % len(b.replicas)
		if r := b.replicas[b.next]; r.ready {
			return r
		}
	}
	return nil
}

// add probes a replica from now on, until it has ended.
func (b *balancer) add(r *backend) {
	b.mu.Lock()
	b.replicas = append(b.replicas, r)
	b.mu.Unlock()
	client := &http.Client{Timeout: probeTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
	go func() {
		for !r.hasEnded() {
			b.set(r, probe(client, r.probes))
			time.Sleep(probeInterval)
		}
		b.remove(r)
	}()
}

func (b *balancer) set(r *backend, ready bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r.ready = ready
}

func (b *balancer) remove(r *backend) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, other := range b.replicas {
		if other == r {
			b.replicas = append(b.replicas[:i:i], b.replicas[i+1:]...)
			return
		}
	}
}

// isReady reports whether new connections may go to a replica.
func (b *balancer) isReady(r *backend) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return r.ready
}

func probe(client *http.Client, address string) bool {
	res, err := client.Get("http://" + address + "/readyz")
	if err != nil {
		return false
	}
	_, _ = io.Copy(io.Discard, res.Body)
	return res.Body.Close() == nil && res.StatusCode == http.StatusOK
}
