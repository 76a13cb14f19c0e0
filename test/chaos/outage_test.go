// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// apiDown takes the API server away for 10 s to 4 min, refusing or silent.
func (w *world) apiDown() {
	w.operate(1, false, plan{})
	w.mixed(8, 8)
	for i := 0; w.sleep(w.between(30*time.Second, 80*time.Second)); i++ {
		length := w.between(10*time.Second, 60*time.Second)
		if i%3 == 1 {
			length = w.between(2*time.Minute, 4*time.Minute)
		}
		w.outage(func() {
			w.replicas[0].api.set([]line{refusing, silent}[w.rng.IntN(2)])
			w.sleep(length)
			w.replicas[0].api.set(connected)
		})
	}
}

// apiFaults fails three in ten requests.
func (w *world) apiFaults() {
	w.operate(1, false, plan{})
	w.replicas[0].api.setFaulty(0.3)
	w.mixed(8, 8)
}

// apiRestarts kills the API server itself, and starts it again, while the operators' only way leads to it.
func (w *world) apiRestarts() {
	server, err := env.AddAPIServer()
	w.must(err)
	w.must(server.Start(w.ctx))
	w.Cleanup(func() {
		if err := server.Kill(); err != nil {
			w.Errorf("ending the API server: %v", err)
		}
	})
	w.apiHost = server.Host
	w.operate(2, true, plan{})
	w.mixed(8, 8)
	for w.sleep(w.between(40*time.Second, 80*time.Second)) {
		w.outage(func() {
			w.must(server.Kill())
			w.sleep(w.between(0, 20*time.Second))
			w.must(server.Start(w.ctx))
		})
	}
}

// wechatFaults lets WeChat fail in every way: away, silent, slow, with pages in place of answers, and an errcode of each class.
// Each way comes before any comes again.
func (w *world) wechatFaults() {
	w.operate(1, false, plan{})
	w.mixed(10, 10)
	refused := w.refuseForLong()
	stable := wechattest.EndpointStable
	faults := []wechattest.Fault{
		{Cut: wechattest.CutBefore}, {Hang: true}, {Status: 502}, {Status: 200, Body: "<html>hello</html>", ContentType: "text/html"},
		{Garbage: true}, {Errcode: -1}, {Errcode: 45011}, {Errcode: 40164}, {Errcode: 40001}, {Errcode: 50007}, {Errcode: 99999},
		{Delay: 3 * time.Second}, {Endpoint: stable, Cut: wechattest.CutAfter}, {Endpoint: stable, Cut: wechattest.CutBody},
		{Endpoint: stable, DelayAnswer: 7 * time.Second},
	}
	for i, order := 0, w.rng.Perm(len(faults)); w.sleep(w.between(31*time.Second, 36*time.Second)); i++ {
		w.outage(func() {
			w.wechat.Inject(faults[order[i%len(order)]])
			w.sleep(w.between(4*time.Second, 28*time.Second))
			w.wechat.ClearFaults()
		})
	}
	refused.kept(w)
}

// patience is what resources owe to WeChat that named the time of the next call.
type patience struct {
	refs []*targetRef
	at   time.Time
}

// refuseForLong gives resources of their own each errcode that asks for half an hour or more. Their tokens die of it, so they
// are not judged; that the others go on is what the samples show.
func (w *world) refuseForLong() *patience {
	p := &patience{}
	for _, code := range []int{45009, 89507, 89506} {
		for _, mode := range []v1alpha1.Mode{v1alpha1.ModeStable, v1alpha1.ModeLegacy} {
			account := len(w.targets)
			w.wechat.SetApp(wechattest.App{ID: w.appID(account), Life: 2 * time.Hour})
			refused := wechattest.Fault{AppID: w.appID(account), Errcode: code}
			if mode == v1alpha1.ModeLegacy {
				w.wechat.Inject(refused) // it never gets a token: a refresh would wait for the account's pace
			}
			ref := w.addToken(w.namespaces[0], account, fmt.Sprintf("t%03d", account), mode)
			if mode == v1alpha1.ModeStable && !w.ready(ref) {
				return p
			}
			ref.until = time.Now()
			p.refs = append(p.refs, ref)
			if mode == v1alpha1.ModeStable {
				w.wechat.Inject(refused)
				w.request(ref, v1alpha1.AnnotationRefreshRequestedAt)
			}
		}
	}
	if !w.until(30*time.Second, func() bool { return !slices.ContainsFunc(p.refs, w.neverRefused) }) {
		w.Error("the resources that WeChat was to refuse for long asked for nothing")
	}
	w.wechat.ClearFaults()
	p.at = time.Now()
	return p
}

// neverRefused: WeChat answered no errcode yet.
func (w *world) neverRefused(ref *targetRef) bool {
	return !slices.ContainsFunc(w.wechat.Calls(wechattest.Filter{AppID: ref.appID}), func(c wechattest.Call) bool { return c.Errcode != 0 })
}

// kept checks at the end that nobody called again.
func (p *patience) kept(w *world) {
	for _, ref := range p.refs {
		if n := len(w.wechat.Calls(wechattest.Filter{AppID: ref.appID, Since: p.at})); n > 0 {
			w.Errorf("%s: %d calls before the time that WeChat named", ref.name, n)
		}
	}
}

// hostDown takes one of WeChat's two hosts away.
func (w *world) hostDown() {
	first := newGate(w, strings.TrimPrefix(w.wechat.URL(), "http://"))
	w.operate(1, false, plan{}, "--wechat-endpoints=http://"+first.addr+","+w.wechat.URL())
	w.mixed(8, 8)
	for w.sleep(w.between(5*time.Second, 40*time.Second)) {
		first.close()
		w.sleep(w.between(20*time.Second, 90*time.Second))
		first.open()
	}
}

// gate is a host in front of the stand-in that can be down.
type gate struct {
	w        *world
	addr, to string

	mu       sync.Mutex
	listener net.Listener
	conns    []net.Conn
}

func newGate(w *world, to string) *gate {
	g := &gate{w: w, addr: "127.0.0.1:0", to: to}
	g.open()
	w.Cleanup(g.close)
	return g
}

func (g *gate) open() {
	l, err := net.Listen("tcp", g.addr)
	if err != nil {
		g.w.Errorf("opening the host again: %v", err)
		return
	}
	g.mu.Lock()
	g.listener, g.addr = l, l.Addr().String()
	g.mu.Unlock()
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go g.join(in)
		}
	}()
}

func (g *gate) join(in net.Conn) {
	out, err := net.Dial("tcp", g.to)
	if err != nil {
		_ = in.Close()
		return
	}
	g.mu.Lock()
	g.conns = append(g.conns, in, out)
	g.mu.Unlock()
	go func() { _, _ = io.Copy(out, in); _ = out.Close() }()
	_, _ = io.Copy(in, out)
	_ = in.Close()
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	_ = g.listener.Close()
	for _, c := range g.conns {
		_ = c.Close()
	}
	g.conns = nil
}
