// SPDX-License-Identifier: Apache-2.0

// bench measures the operator's real binary on a real API server, beside a plain loop that does the least possible work.
// Run it by make bench; docs/performance.md explains the figures.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctrl.SetLogger(logr.Discard())
	var err error
	if len(os.Args) > 1 && os.Args[1] == runPlainLoop {
		err = runPlain(ctx, os.Args[2:], os.Stderr)
	} else {
		err = run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	}
	stop()
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	default:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	programs

	runs    []string
	sizes   []int
	steady  time.Duration
	foreign int
	// foreignSize in bytes.
	foreignSize int
	etcdQuota   int64
	dir         string
	json        string
	profiles    string
	exceptions  string
	ranges      string
	version     string
}

func parseOptions(args []string, stderr io.Writer) (options, error) {
	var o options
	var runs, sizes string
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.operator, "operator", "bin/operator", "the operator's binary")
	flags.StringVar(&o.fakeWeChat, "fake-wechat", "bin/fake-wechat", "the stand-in's binary")
	flags.StringVar(&runs, "runs", strings.Join(allRuns, ","), "what to measure besides the plain loop")
	flags.StringVar(&sizes, "sizes", "1000,10000", "numbers of resources; the first is used where one size is enough, "+
		"the last for rotation, burst and failing")
	flags.DurationVar(&o.steady, "steady", 2*time.Minute, "how long the steady state is watched")
	flags.IntVar(&o.foreign, "foreign", 50_000, "number of foreign Secrets")
	flags.IntVar(&o.foreignSize, "foreign-size", 4<<10, "size of each in bytes")
	flags.Int64Var(&o.etcdQuota, "etcd-quota", 4<<30, "what etcd may store, in bytes")
	flags.StringVar(&o.dir, "dir", "", "folder for logs, made if it is missing; default a temporary one that is deleted")
	flags.StringVar(&o.json, "json", "", "file for the report")
	flags.StringVar(&o.profiles, "profiles", "", "folder for CPU and heap profiles of cold starts and steady states, which cost some speed")
	flags.StringVar(&o.exceptions, "exceptions", "test/bench/exceptions.yaml", "goals that are known to be missed")
	flags.StringVar(&o.ranges, "ranges", "", "compare with these ranges instead of the goals")
	flags.StringVar(&o.version, "version", "", "version that is measured, for the report")
	if err := flags.Parse(args); err != nil {
		return options{}, err
	}
	return o, o.complete(runs, sizes, flags.Args())
}

func (o *options) complete(runs, sizes string, rest []string) (err error) {
	if len(rest) > 0 {
		return fmt.Errorf("%q is no flag", rest[0])
	}
	o.runs = strings.Split(runs, ",")
	for _, name := range o.runs {
		if !slices.Contains(allRuns, name) {
			return fmt.Errorf("--runs: %q is none of %s", name, strings.Join(allRuns, ", "))
		}
	}
	for text := range strings.SplitSeq(sizes, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || n < 10 {
			return fmt.Errorf("--sizes: %q is no number of at least 10", text)
		}
		o.sizes = append(o.sizes, n)
	}
	for _, folder := range []string{o.dir, o.profiles} {
		if folder != "" {
			err = errors.Join(err, os.MkdirAll(folder, 0o755))
		}
	}
	if o.self, err = os.Executable(); err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	return err
}

// run measures, prints the table, and fails when something is not as it ought to be.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parseOptions(args, stderr)
	if err != nil {
		return err
	}
	known, err := readExceptions(o.exceptions)
	if err != nil {
		return err
	}
	var ranges []expectation
	if o.ranges != "" {
		if ranges, err = readRanges(o.ranges); err != nil {
			return err
		}
	}
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "bench-"); err != nil {
			return err
		}
		defer os.RemoveAll(o.dir) //nolint:errcheck // a temporary folder
	}
	b := &bench{options: o, report: newReport(o.version, time.Now()), log: stderr, start: time.Now()}
	measured := b.measure(ctx)
	b.report.finish(known)
	if err := b.report.writeTable(stdout); err != nil {
		return err
	}
	if o.json != "" {
		if err := b.report.writeJSON(o.json); err != nil {
			return err
		}
	}
	if measured != nil {
		return errors.Join(b.report.void(), measured) // a machine that is too slow is a likely cause
	}
	if ranges != nil {
		return b.report.compare(ranges)
	}
	return b.report.verdict()
}
