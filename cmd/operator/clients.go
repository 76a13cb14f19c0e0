// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"strings"
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

// parseGateway returns how clients reach the gateway, by --gateway-url and --gateway-ca-file.
func parseGateway(address, caFile string) (appclient.Gateway, error) {
	g := appclient.Gateway{}
	if address == "" {
		if caFile != "" {
			return g, errors.New("--gateway-ca-file: it needs --gateway-url")
		}
		return g, nil
	}
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return g, errors.New("--gateway-url: it must be the URL of a host, such as https://wechat-gateway.wechat.svc")
	case u.Scheme != "https" && u.Scheme != "http":
		return g, errors.New("--gateway-url: it must begin with https://, or with http:// where the gateway serves no HTTPS")
	}
	g.URL = u.Scheme + "://" + u.Host
	if caFile == "" {
		return g, nil
	}
	content, err := file.Read(caFile)
	if err != nil {
		return g, fmt.Errorf("--gateway-ca-file: %w", err)
	}
	if g.CA = certificates(content); g.CA == "" {
		return g, fmt.Errorf("--gateway-ca-file: %s has no certificate in PEM", caFile)
	}
	return g, nil
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
