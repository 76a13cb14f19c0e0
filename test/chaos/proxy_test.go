// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

// line is what an apiProxy does with requests.
type line int

const (
	connected line = iota
	// refusing cuts each connection, as when no API server runs.
	refusing
	// silent answers nothing, as when a network drops everything.
	silent
	// stalled answers nothing until it is connected again, and then ends the requests that wait. A client's own connection would notice
	// by its pings, which do not reach through this proxy, that it has to be made anew.
	stalled
)

// apiProxy is one operator's way to the API server, with that operator's certificate. Nobody else uses it.
type apiProxy struct {
	url   string
	proxy *httputil.ReverseProxy

	mu   sync.Mutex
	line line
	// cut is closed when the line goes down, and back when it is connected again.
	cut, back chan struct{}
	// faulty is the probability of a request to fail.
	faulty float64
	rng    *rand.Rand
	// refused counts the writes of the token that were refused, by the path of the Secret.
	refused map[string]int

	statusWrites atomic.Int64
	// refuseEach is how many writes of the token to each Secret are refused.
	refuseEach atomic.Int64
}

func newAPIProxy(t *testing.T, config *rest.Config, seed uint64) *apiProxy {
	t.Helper()
	transport, err := rest.TransportFor(config)
	if err != nil {
		t.Fatal(err)
	}
	server, err := url.Parse(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	p := &apiProxy{
		cut: make(chan struct{}), rng: rand.New(rand.NewPCG(seed, 1)), refused: map[string]int{},
		proxy: &httputil.ReverseProxy{
			Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(server) },
			Transport:     transport,
			FlushInterval: -1,
			ErrorLog:      discard(), // of connections that were cut on purpose
			ErrorHandler:  func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		},
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.url = "http://" + listener.Addr().String()
	web := &http.Server{Handler: p, ReadHeaderTimeout: time.Minute, ErrorLog: discard()}
	go func() { _ = web.Serve(listener) }()
	t.Cleanup(func() { _ = web.Close() })
	return p
}

// set changes the line. Requests under way, watches too, are cut when it goes down.
func (p *apiProxy) set(l line) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l != connected && p.line == connected {
		close(p.cut)
		p.back = make(chan struct{})
	}
	if l == connected && p.line != connected {
		p.cut = make(chan struct{})
		close(p.back)
	}
	p.line = l
}

func (p *apiProxy) setFaulty(probability float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faulty = probability
}

// refuses reports whether a request is one of the writes of a token that are to be refused.
func (p *apiProxy) refuses(r *http.Request) bool {
	each := int(p.refuseEach.Load())
	if each == 0 || !writesData(r) {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refused[r.URL.Path] >= each {
		return false
	}
	p.refused[r.URL.Path]++
	return true
}

// comesBack waits until a line that is down is connected again.
func (p *apiProxy) comesBack(ctx context.Context) {
	p.mu.Lock()
	back := p.back
	p.mu.Unlock()
	select {
	case <-back:
	case <-ctx.Done():
	}
}

func (p *apiProxy) state() (l line, cut chan struct{}, dice, kind float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	dice = 1
	if p.faulty > 0 && p.rng.Float64() < p.faulty {
		dice = 0
	}
	return p.line, p.cut, dice, p.rng.Float64()
}

func (p *apiProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l, cut, dice, kind := p.state()
	switch {
	case l == silent:
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	case l == stalled:
		p.comesBack(r.Context())
		panic(http.ErrAbortHandler)
	case l == refusing:
		panic(http.ErrAbortHandler)
	case dice == 0:
		p.fail(w, r, kind)
		return
	case p.refuses(r):
		refuse(w, http.StatusInternalServerError, "InternalError")
		return
	}
	p.forward(w, r, cut)
}

// writesData tells whether the request carries a token to a Secret.
func writesData(r *http.Request) bool {
	if r.Method != http.MethodPatch || !strings.Contains(r.URL.Path, "/secrets/") {
		return false
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return false
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	return bytes.Contains(body, []byte(tokenKey))
}

// forward passes the request on, until the line is cut.
func (p *apiProxy) forward(w http.ResponseWriter, r *http.Request, cut <-chan struct{}) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	go func() {
		select {
		case <-cut:
			cancel()
		case <-ctx.Done():
		}
	}()
	seen := &statusRecorder{ResponseWriter: w}
	p.proxy.ServeHTTP(seen, r.WithContext(ctx))
	if r.Method == http.MethodPatch && strings.HasSuffix(r.URL.Path, "/status") && seen.code == http.StatusOK {
		p.statusWrites.Add(1)
	}
}

// fail fails the request in one of the ways of an API server in trouble. In one of them the request is carried out and
// only its answer gets lost.
func (p *apiProxy) fail(w http.ResponseWriter, r *http.Request, kind float64) {
	watch := r.URL.Query().Get("watch") != ""
	switch {
	case kind < 0.2:
		refuse(w, http.StatusConflict, "Conflict")
	case kind < 0.4:
		w.Header().Set("Retry-After", "1")
		refuse(w, http.StatusTooManyRequests, "TooManyRequests")
	case kind < 0.7 || watch:
		refuse(w, http.StatusInternalServerError, "InternalError")
	case kind < 0.85:
		select {
		case <-r.Context().Done():
		case <-time.After(5 * time.Second):
		}
		panic(http.ErrAbortHandler)
	default:
		p.proxy.ServeHTTP(nowhere{http.Header{}}, r)
		panic(http.ErrAbortHandler)
	}
}

func refuse(w http.ResponseWriter, code int, reason string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"kind": "Status", "apiVersion": "v1", "metadata": map[string]any{}, "status": "Failure",
		"message": "injected by the test", "reason": reason, "code": code,
	})
}

// nowhere is where an answer gets lost.
type nowhere struct{ header http.Header }

func (n nowhere) Header() http.Header         { return n.header }
func (n nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (n nowhere) WriteHeader(int)             {}

type statusRecorder struct {
	http.ResponseWriter

	code int
}

func (s *statusRecorder) WriteHeader(code int) {
	s.code = code
	s.ResponseWriter.WriteHeader(code)
}

func (s *statusRecorder) Unwrap() http.ResponseWriter { return s.ResponseWriter }
