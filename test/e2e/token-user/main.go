// SPDX-License-Identifier: Apache-2.0

// Command token-user is a pod of the end-to-end test: it reads the token from its volume and uses it, ten times a second, and never
// tries again. With --bearer-file it calls the gateway with a token of its ServiceAccount. GET /stats says what it saw.
package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// stats is what a pod saw. The test decodes it.
type stats struct {
	// Used counts the answers, Refused those that said that the token is bad, Unanswered the calls without one.
	Used       int       `json:"used"`
	Refused    []refused `json:"refused"`
	Unanswered []string  `json:"unanswered"`
	// Seen are the tokens in the order in which the volume had them.
	Seen []seen `json:"seen"`
}

type refused struct {
	At          time.Time `json:"at"`
	Fingerprint string    `json:"fingerprint"`
	answer
}

// answer is what WeChat or the gateway says of a call.
type answer struct {
	Errcode int    `json:"errcode"`
	Errmsg  string `json:"errmsg"`
}

type seen struct {
	At          time.Time `json:"at"`
	Fingerprint string    `json:"fingerprint"`
}

type user struct {
	dir, wechat string
	// bearer is a file with a token of the pod's ServiceAccount, for the gateway; empty for the token in dir.
	bearer string
	client *http.Client

	mu    sync.Mutex
	stats stats
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "token-user:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	u := &user{}
	var caFile, addr string
	var every time.Duration
	flag.StringVar(&u.dir, "token-dir", "/var/run/wechat", "where the Secret is mounted")
	flag.StringVar(&u.wechat, "wechat-url", "", "base URL of the stand-in")
	flag.StringVar(&u.bearer, "bearer-file", "", "token of the ServiceAccount to call the gateway with, instead of a token of WeChat's")
	flag.StringVar(&caFile, "wechat-ca-file", "", "certificate authority to trust for it")
	flag.StringVar(&addr, "addr", ":8080", "address to listen on")
	flag.DurationVar(&every, "every", 100*time.Millisecond, "time between two uses")
	flag.Parse()
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	u.client = &http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}},
	}
	http.HandleFunc("GET /stats", u.serveStats)
	server := &http.Server{Addr: addr, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	go u.useForEver(ctx, every)
	if err := server.ListenAndServe(); ctx.Err() == nil {
		return err
	}
	return nil
}

func (u *user) useForEver(ctx context.Context, every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		u.use(ctx)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// use reads the token anew and makes one call with it.
func (u *user) use(ctx context.Context) {
	file := filepath.Join(u.dir, "access_token")
	if u.bearer != "" {
		file = u.bearer
	}
	value, err := os.ReadFile(file)
	now := time.Now()
	if err != nil {
		u.note(func(s *stats) { s.Unanswered = append(s.Unanswered, err.Error()) })
		return
	}
	sum := sha256.Sum256(value)
	fingerprint := hex.EncodeToString(sum[:8])
	u.note(func(s *stats) {
		if n := len(s.Seen); n == 0 || s.Seen[n-1].Fingerprint != fingerprint {
			s.Seen = append(s.Seen, seen{now, fingerprint})
		}
	})
	got, err := u.call(ctx, string(value))
	u.note(func(s *stats) {
		switch {
		case err != nil:
			s.Unanswered = append(s.Unanswered, err.Error())
		case got.Errcode != 0:
			s.Refused = append(s.Refused, refused{now, fingerprint, got})
			fallthrough
		default:
			s.Used++
		}
	})
}

func (u *user) call(ctx context.Context, token string) (a answer, err error) {
	address := u.wechat + "/cgi-bin/get_api_domain_ip"
	if u.bearer == "" {
		address += "?access_token=" + url.QueryEscape(token)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return a, err
	}
	if u.bearer != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := u.client.Do(req)
	if err != nil {
		return a, err.(*url.Error).Err //nolint:errorlint,forcetypeassert // Do says so; without the URL, which has the token
	}
	defer res.Body.Close() //nolint:errcheck // it was only read
	err = json.NewDecoder(res.Body).Decode(&a)
	return a, err
}

func (u *user) note(change func(*stats)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	change(&u.stats)
}

func (u *user) serveStats(w http.ResponseWriter, _ *http.Request) {
	u.mu.Lock()
	defer u.mu.Unlock()
	_ = json.NewEncoder(w).Encode(u.stats) // fails when the caller is gone
}
