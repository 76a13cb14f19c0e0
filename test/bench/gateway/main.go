// SPDX-License-Identifier: Apache-2.0

// Command gateway measures the gateway beside the least proxy that Go's standard library makes, and beside Caddy. A proxy has the first
// core for itself; the load and what stands in for WeChat, over TLS, have the second one.
package main

import (
	"cmp"
	"context"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"
)

func main() {
	var err error
	if len(os.Args) == 6 && os.Args[1] == "proxy" {
		err = runProxy(os.Args[2], os.Args[3], os.Args[4], os.Args[5])
	} else {
		err = run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gateway benchmark:", err)
		os.Exit(1)
	}
}

// ownKind is the kind of proxy that is judged.
const ownKind = "gateway"

// round is what one run of one proxy showed.
type round struct {
	// cpu is the time on a CPU, mallocs and bytes the allocations, for each relayed call.
	cpu            time.Duration
	mallocs, bytes float64
	p99            time.Duration
	// tokens is how many answers with a token the gateway makes in the CPU time of a relayed call.
	tokens float64
	// uploads is how much memory the uploads took at their peak.
	uploads int64
}

type settings struct {
	rounds  int
	length  time.Duration
	rate    int
	callers int
	caddy   string
}

func run() error {
	var s settings
	flag.IntVar(&s.rounds, "rounds", 5, "how often each proxy is measured, in turn")
	flag.DurationVar(&s.length, "length", 4*time.Second, "how long each part of a round takes")
	flag.IntVar(&s.rate, "rate", 1000, "calls a second where latency is measured")
	flag.IntVar(&s.callers, "callers", 16, "callers at the same time where CPU is measured")
	flag.StringVar(&s.caddy, "caddy", "", "the program of Caddy; without it, Caddy is not measured")
	clients := flag.Int("clients", 0, "measure the memory of --gateway with so many clients and tokens, and nothing else")
	program := flag.String("gateway", "bin/gateway", "the gateway's program")
	flag.Parse()
	dir, err := os.MkdirTemp("", "gateway-bench")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	upstream := startUpstream()
	defer upstream.Close()
	caFile := filepath.Join(dir, "ca.crt")
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: upstream.Certificate().Raw})
	if err := os.WriteFile(caFile, ca, 0o600); err != nil {
		return err
	}
	ctx := context.Background()
	if *clients > 0 {
		return measureMemory(ctx, *program, upstream.URL, caFile, dir, *clients)
	}
	kinds := []string{"bare", ownKind}
	if s.caddy != "" {
		kinds = append(kinds, "caddy")
	}
	rounds := map[string][]round{}
	for n := range s.rounds {
		for _, kind := range kinds {
			r, err := s.measure(ctx, kind, upstream.URL, caFile, dir)
			if err != nil {
				return fmt.Errorf("%s, round %d: %w", kind, n+1, err)
			}
			fmt.Fprintf(os.Stderr, "round %d of %d: %-8s %v a call, p99 %v\n", n+1, s.rounds, kind, r.cpu, r.p99)
			rounds[kind] = append(rounds[kind], r)
		}
	}
	return report(s, rounds)
}

// measure starts a proxy, measures it and ends it.
func (s settings) measure(ctx context.Context, kind, upstream, caFile, dir string) (r round, err error) {
	var p *proxy
	if kind == "caddy" {
		p, err = startCaddy(ctx, s.caddy, upstream, caFile, dir)
	} else {
		p, err = startProxy(ctx, kind, upstream, caFile, dir)
	}
	if err != nil {
		return r, err
	}
	defer p.stop()
	token, err := p.tokenOf(ctx, kind, clientKey)
	if err != nil {
		return r, err
	}
	call := newCaller(p.url+callPath+token, message)
	if _, err := closedLoop(ctx, call, s.callers, s.length/4); err != nil { // warm
		return r, err
	}
	used, calls, err := s.loop(ctx, p, call)
	if err != nil {
		return r, err
	}
	r.cpu = used.CPU / time.Duration(calls)
	r.mallocs, r.bytes = float64(used.Mallocs)/float64(calls), float64(used.Bytes)/float64(calls)
	took, err := openLoop(ctx, call, s.rate, s.length)
	if err != nil {
		return r, err
	}
	r.p99 = took[len(took)*99/100]
	if kind == ownKind {
		used, answers, err := s.loop(ctx, p, newCaller(p.url+tokenPath+clientKey, nil))
		if err != nil {
			return r, err
		}
		r.tokens = float64(r.cpu) / (float64(used.CPU) / float64(answers))
	}
	r.uploads, err = s.uploadsOf(ctx, p, token)
	return r, err
}

// loop has callers call for a while, and returns what that cost the proxy and how many calls were made.
func (s settings) loop(ctx context.Context, p *proxy, c caller) (used cost, calls int, err error) {
	before, err := p.cost()
	if err != nil {
		return used, 0, err
	}
	calls, err = closedLoop(ctx, c, s.callers, s.length)
	if err != nil {
		return used, 0, err
	}
	after, err := p.cost()
	if calls == 0 {
		err = errors.Join(err, errors.New("no call was made"))
	}
	return cost{CPU: after.CPU - before.CPU, Mallocs: after.Mallocs - before.Mallocs, Bytes: after.Bytes - before.Bytes}, calls, err
}

// uploadsOf returns how much 100 uploads of 10 MiB at the same time add to a proxy's memory.
func (s settings) uploadsOf(ctx context.Context, p *proxy, token string) (int64, error) {
	if err := p.forgetPeak(); err != nil {
		return 0, err
	}
	before, err := p.memory("VmRSS")
	if err != nil {
		return 0, err
	}
	if err := uploads(ctx, newCaller(p.url+uploadPath+token, make([]byte, 10<<20)), 100); err != nil {
		return 0, err
	}
	peak, err := p.memory("VmHWM")
	return peak - before, err
}

// report prints the medians beside the goals. It returns an error if a goal is missed.
func report(s settings, rounds map[string][]round) error {
	bare, own := rounds["bare"], rounds[ownKind]
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	missed := 0
	row := func(what string, value, goal float64, atLeast bool, format string) {
		met := value <= goal
		sign := "≤"
		if atLeast {
			met, sign = value >= goal, "≥"
		}
		verdict := "met"
		if !met {
			verdict = "MISSED"
			missed++
		}
		fmt.Fprintf(w, "%s\t"+format+"\t%s "+format+"\t%s\n", what, value, sign, goal, verdict)
	}
	fmt.Fprintf(w, "Gateway, medians of %d rounds\tmeasured\tgoal\t\n", s.rounds)
	cpu := func(r round) float64 { return float64(r.cpu) / 1e3 }
	p99 := func(r round) float64 { return float64(r.p99) / 1e6 }
	row("CPU of a relayed call, times the bare proxy's", median(own, cpu)/median(bare, cpu), 1.25, false, "%.2f")
	mallocs := func(r round) float64 { return r.mallocs }
	row("allocations more for each call", median(own, mallocs)-median(bare, mallocs), 25, false, "%.1f")
	size := func(r round) float64 { return r.bytes / 1024 }
	row("KiB more for each call", median(own, size)-median(bare, size), 4, false, "%.1f")
	row(fmt.Sprintf("p99 at %d calls a second, ms more", s.rate), median(own, p99)-median(bare, p99), 1, false, "%.2f")
	row("answers with a token in the CPU time of a call", median(own, func(r round) float64 { return r.tokens }), 3, true, "%.1f")
	mib := func(r round) float64 { return float64(r.uploads) / (1 << 20) }
	row("100 uploads of 10 MiB at a time, MiB more", median(own, mib), 20, false, "%.1f")
	fmt.Fprintf(w, "\t\t\t\n")
	for _, kind := range []string{"bare", ownKind, "caddy"} {
		if list := rounds[kind]; len(list) > 0 {
			fmt.Fprintf(w, "%s\t%.1f µs CPU a call\tp99 %.2f ms\t%.1f MiB for uploads\n", kind, median(list, cpu), median(list, p99),
				median(list, mib))
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if missed > 0 {
		return fmt.Errorf("%d goals were missed", missed)
	}
	return nil
}

// median returns the middle of the rounds' values.
func median[T cmp.Ordered](rounds []round, value func(round) T) T {
	values := make([]T, 0, len(rounds))
	for _, r := range rounds {
		values = append(values, value(r))
	}
	slices.Sort(values)
	return values[len(values)/2]
}
