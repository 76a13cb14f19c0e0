// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/appclient"
	"github.com/wechat-token-operator/wechat-token-operator/internal/file"
	"github.com/wechat-token-operator/wechat-token-operator/internal/kube"
)

// clientsInterval is the time between two looks whether the API server serves WeChatAppClients.
const clientsInterval = 30 * time.Second

// clientsStart starts the controller of WeChatAppClients once the API server lets the operator list them. An operator whose cluster lacks
// their CRD, or whose role is from before it, keeps tokens all the same: an informer that cannot list would keep it from being ready.
type clientsStart struct {
	log      logr.Logger
	interval time.Duration
	// list asks the API server for WeChatAppClients.
	list func(context.Context) error
	// setUp sets the controller up.
	setUp func(context.Context) error
}

// addClients adds what starts the controller of WeChatAppClients.
func addClients(mgr ctrl.Manager, opts *options, log logr.Logger, reconciler *appclient.Reconciler) error {
	live := mgr.GetAPIReader()
	list := func(ctx context.Context) (err error) {
		ctx, cancel := context.WithTimeout(ctx, kube.AnswerWithin)
		defer cancel()
		namespaces := opts.namespaceList
		if len(namespaces) == 0 {
			namespaces = []string{metav1.NamespaceAll}
		}
		for _, namespace := range namespaces {
			clients := &metav1.PartialObjectMetadataList{}
			clients.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(v1alpha1.ClientKind + "List"))
			// A limit would make it look like the list of an informer, which has a meaning of its own (namespaces.go).
			err = live.List(ctx, clients, client.InNamespace(namespace), client.MatchingFields{"metadata.name": "none"})
			if err == nil {
				return nil
			}
		}
		return err
	}
	start := clientsStart{
		log: log, interval: clientsInterval, list: list,
		setUp: func(ctx context.Context) error { return reconciler.SetupWithManager(ctx, mgr) },
	}
	if err := mgr.Add(start); err != nil {
		return fmt.Errorf("adding to the manager: %w", err)
	}
	return nil
}

// Start waits until WeChatAppClients can be listed, sets their controller up and ends. It tells of an obstacle once.
func (s clientsStart) Start(ctx context.Context) error {
	told := ""
	for {
		err := s.list(ctx)
		if err == nil {
			return s.setUp(ctx)
		}
		if err.Error() != told && ctx.Err() == nil {
			told = err.Error()
			s.log.Info("WeChatAppClients are not served until their CRD is installed and the operator's role allows to list them; "+
				"tokens are not affected", "command", kube.InstallCRD, "reason", told)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(s.interval):
		}
	}
}

// NeedLeaderElection returns false, so that a standby fills its cache.
func (clientsStart) NeedLeaderElection() bool { return false }

// gateway knows how clients reach the gateway, by --gateway-url and --gateway-ca-file.
type gateway struct {
	url, caFile string
	current     atomic.Pointer[appclient.Gateway]
}

// parseGateway returns the gateway that the flags name. A file that cannot be read is no error: cert-manager may be about to make it, and
// tokens need no gateway.
func parseGateway(address, caFile string) (*gateway, error) {
	g := &gateway{caFile: caFile}
	g.current.Store(&appclient.Gateway{})
	if address == "" {
		if caFile != "" {
			return nil, errors.New("--gateway-ca-file: it needs --gateway-url")
		}
		return g, nil
	}
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return nil, errors.New("--gateway-url: it must be the URL of a host, such as https://wechat-gateway.wechat.svc")
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("--gateway-url: it must begin with https://, or with http:// where the gateway serves no HTTPS")
	}
	g.url = u.Scheme + "://" + u.Host
	_, _ = g.reload() // clients tell of an error, and so does the log when the file is read again
	return g, nil
}

// Current returns how clients reach the gateway now.
func (g *gateway) Current() appclient.Gateway { return *g.current.Load() }

// reload reads the file and reports whether Current has changed. What a file held stays in use while it cannot be read.
func (g *gateway) reload() (changed bool, err error) {
	before, next := g.Current(), appclient.Gateway{URL: g.url}
	if g.caFile != "" {
		next.CA, err = readCertificates(g.caFile)
	}
	switch {
	case err == nil:
	case before.URL != "":
		return false, err
	default:
		next = appclient.Gateway{Problem: "the operator does not know the gateway's certificate authority: --gateway-ca-file: " + err.Error() +
			". Programs would not trust the gateway. Put it into ca.crt of the gateway's certificate Secret, " +
			"or leave the flag out if a public authority signed the certificate (the chart's value gateway.tls.privateCA: false)"}
	}
	g.current.Store(&next)
	return next != before, err
}

// reloader returns reload for a CAWatch, with a call of changed after each change.
func (g *gateway) reloader(changed func()) func() (bool, error) {
	return func() (bool, error) {
		isChanged, err := g.reload()
		if isChanged {
			changed()
		}
		return isChanged, err
	}
}

// readCertificates returns the certificates of a PEM file.
func readCertificates(name string) (string, error) {
	content, err := file.Read(name)
	if err != nil {
		return "", err //nolint:wrapcheck // it has the name and what was tried
	}
	out := certificates(content)
	if out == "" {
		return "", fmt.Errorf("%s has no certificate in PEM", name)
	}
	return out, nil
}

// certificates returns the certificates of a PEM file and nothing else of it, such as a private key, because everybody gets them who may
// read a key Secret.
func certificates(content []byte) string {
	var out strings.Builder
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			out.Write(pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes}))
		}
	}
	return out.String()
}
