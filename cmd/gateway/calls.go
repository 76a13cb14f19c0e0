// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wechat-token-operator/wechat-token-operator/internal/certificate"
	"github.com/wechat-token-operator/wechat-token-operator/internal/gateway"
	"github.com/wechat-token-operator/wechat-token-operator/internal/program"
)

var errNoPolicy = errors.New("the WeChatAppClients have not been read yet")

// calls is what answers calls.
type calls struct {
	http.Handler

	log   logr.Logger
	api   *api
	store *gateway.Store
	relay *gateway.Relay
	hints *gateway.Hints
	// audit is nil without --audit-log, and sink is the file behind it.
	audit *gateway.Audit
	sink  io.Closer
	// certificate is nil without TLS.
	certificate *certificate.Certificate
	// watchCA reports whether there is a file of certificate authorities.
	watchCA bool
}

// newCalls puts the gateway together. It sends no request and opens nothing but the audit log.
func newCalls(opts *options, a *api, logger logr.Logger, metrics prometheus.Registerer) (*calls, error) {
	c := &calls{log: logger, api: a, watchCA: opts.wechatCAFile != ""}
	c.store = gateway.NewStore(gateway.StoreOptions{Objects: a.objects, Credentials: a.credentials})
	c.hints = gateway.NewHints(a.live, time.Now)
	var err error
	c.relay, err = gateway.NewRelay(gateway.RelayOptions{
		Endpoints:        strings.Split(opts.wechatEndpoints, ","),
		CAFile:           opts.wechatCAFile,
		Timeout:          opts.wechatTimeout,
		MaxInFlight:      opts.wechatMaxInFlight,
		MaxBufferedBytes: opts.maxBufferedBytes,
		Source:           c.store,
		Hint:             c.hints.Note,
		Problem:          gateway.LogProblems(logger, time.Now),
	})
	if err != nil {
		return nil, fmt.Errorf("setting up WeChat's client: %w", err)
	}
	if opts.tlsCertFile != "" {
		c.certificate = certificate.New(certificate.Options{
			CertFile: opts.tlsCertFile, KeyFile: opts.tlsKeyFile, Purpose: "callers", Flag: "--tls-cert-file", Log: logger,
		})
	}
	if err := c.openAudit(opts.auditLog); err != nil {
		return nil, err
	}
	meter, err := gateway.NewMetrics(metrics, c.relay, c.audit, c.hints)
	if err != nil {
		c.close()
		return nil, fmt.Errorf("registering the metrics of calls: %w", err)
	}
	c.Handler = gateway.New(gateway.Options{
		Source:   c.store,
		Reviewer: gateway.NewReviews(gateway.ReviewsOptions{Tokens: a.reviews, Audience: opts.tokenAudience, Log: logger}),
		Relay:    c.relay,
		Log:      logger,
		Record: func(call *gateway.Call) {
			meter.Record(call)
			if c.audit != nil {
				c.audit.Record(call)
			}
		},
	})
	return c, nil
}

// openAudit opens the audit log, if there is to be one.
func (c *calls) openAudit(path string) error {
	if path == "" {
		return nil
	}
	sink, err := gateway.OpenAudit(path)
	if err != nil {
		return err
	}
	c.sink = sink
	c.audit = gateway.NewAudit(sink, time.Now)
	return nil
}

// close writes what is left of the audit log. No call may come afterwards.
func (c *calls) close() {
	if c.audit != nil {
		c.audit.Close()
		_ = c.sink.Close()
	}
}

// tasks are what runs beside the calls.
func (c *calls) tasks() []func(context.Context) error {
	tasks := []func(context.Context) error{c.store.Start, c.hints.Start}
	if c.watchCA {
		tasks = append(tasks, program.CAWatch{Flag: "--wechat-ca-file", Reload: c.relay.ReloadCA, Log: c.log}.Start)
	}
	return tasks
}

// ready returns nil if calls can be answered. A gateway that was ready once stays so while the API server is away.
func (c *calls) ready(req *http.Request) error {
	if err := c.api.objects.Ready(req); err != nil {
		return err
	}
	if !c.store.Ready() {
		return errNoPolicy
	}
	if c.certificate != nil {
		return c.certificate.Check()
	}
	return nil
}
