// SPDX-License-Identifier: Apache-2.0

// Command show-token prints a file now and each time it changes:
//
//	show-token /var/run/wechat/access_token
//
// It is for a try on a test cluster with a stand-in for WeChat, see pod.yaml. A log is no place for a token of WeChat's: whoever reads
// it has the account.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: show-token FILE")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	show(ctx, os.Stdout, os.Args[1], time.Second)
}

// show looks at the file at this interval until ctx ends. Why it cannot be read is shown like its content.
func show(ctx context.Context, out io.Writer, file string, interval time.Duration) {
	shown := ""
	for ctx.Err() == nil {
		content, err := os.ReadFile(file)
		now := string(content)
		if err != nil {
			now = err.Error()
		}
		if now != shown {
			_, _ = fmt.Fprintln(out, time.Now().UTC().Format(time.RFC3339), now)
			shown = now
		}
		select {
		case <-ctx.Done():
		case <-time.After(interval):
		}
	}
}
