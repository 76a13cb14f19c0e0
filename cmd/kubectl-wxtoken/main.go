// SPDX-License-Identifier: Apache-2.0

// Command kubectl-wxtoken is the kubectl plugin "kubectl wxtoken". It shows the state of WeChatAppTokens, makes requests by setting
// annotations, and diagnoses what keeps a token from its pods.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	setting "github.com/wechat-token-operator/wechat-token-operator/internal/plain"
)

// version is set by the linker.
var version = "dev"

func main() {
	// The commands print their own messages about what the client library would log.
	ctrllog.SetLogger(logr.Discard())
	if err := setting.Environment(); err != nil {
		printError(os.Stderr, shell{}, err)
		os.Exit(exitFailed)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, terminal{
		IOStreams:    genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr},
		now:          time.Now,
		getenv:       os.Getenv,
		knowsEscapes: understandsEscapes,
	}, os.Args[1:])
	stop()
	os.Exit(code)
}
