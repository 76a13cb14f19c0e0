// SPDX-License-Identifier: Apache-2.0

// Command gateway lets programs call WeChat's API without its tokens and AppSecrets: it passes their calls on with the tokens that the
// operator keeps.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/wechat-token-operator/wechat-token-operator/internal/plain"
	"github.com/wechat-token-operator/wechat-token-operator/internal/program"
)

// version is set by the linker.
var version = "dev"

// endTimeout is how long the process waits, when it ends, for what runs beside the calls.
const endTimeout = 5 * time.Second

func main() {
	opts := &options{}
	opts.bind(flag.CommandLine)
	err := errors.Join(program.CleanEnvironment(), program.ParseFlags(flag.CommandLine, os.Args[1:], flagEndpoints, flagNamespaces))
	if opts.version {
		fmt.Println(version)
		return
	}
	logger := program.SetUp(&opts.zap)
	if err == nil {
		err = run(ctrl.SetupSignalHandler(), opts, logger, ctrlmetrics.Registry)
	}
	if err != nil {
		logger.Error(errors.New(plain.Show(err.Error())), "the gateway stops")
		os.Exit(1)
	}
}

// run serves until ctx ends and then until the calls under way have ended. It does not end because the API server is away: a gateway that
// could not read its objects yet is not ready, and says why.
func run(ctx context.Context, opts *options, logger logr.Logger, metrics program.Registry) error {
	if err := opts.complete(); err != nil {
		return err
	}
	api, err := newAPI(opts, logger, metrics)
	if err != nil {
		return err
	}
	calls, err := newCalls(opts, api, logger, metrics)
	if err != nil {
		return err
	}
	defer calls.close()
	s := newService(logger, calls.ready)
	if err := s.listenAll(ctx, opts, api, calls, metrics); err != nil {
		return err
	}
	// What the calls need goes on until the last of them has ended.
	beside, end := context.WithCancel(context.WithoutCancel(ctx))
	ended := runBeside(beside, s.failed, append(calls.tasks(), api.tasks()...))
	logger.Info("the gateway starts", "version", version, "namespaces", opts.namespaceList, "tls", opts.tlsCertFile != "")
	err = s.run(ctx)
	end()
	select {
	case <-ended:
	case <-time.After(endTimeout):
	}
	return err
}

// runBeside runs the tasks until ctx ends. One that fails before is told to failed. The channel is closed when all have ended.
func runBeside(ctx context.Context, failed chan<- error, tasks []func(context.Context) error) <-chan struct{} {
	var running sync.WaitGroup
	for _, task := range tasks {
		running.Go(func() {
			if err := task(ctx); err != nil && ctx.Err() == nil {
				select {
				case failed <- err:
				default: // another one has failed
				}
			}
		})
	}
	ended := make(chan struct{})
	go func() {
		running.Wait()
		close(ended)
	}()
	return ended
}
