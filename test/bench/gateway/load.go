// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	callPath   = "/cgi-bin/message/custom/send?access_token="
	uploadPath = "/cgi-bin/media/upload?type=image&access_token="
	tokenPath  = "/cgi-bin/token?grant_type=client_credential&appid=" + appID + "&secret="
)

// message is what a call sends.
var message = []byte(`{"touser":"oABCDEFGHIJKLMNOPQRSTUVWXYZ0","msgtype":"text","text":{"content":"` +
	`a message of an ordinary length, as a shop sends it when a parcel is on its way to whoever ordered it"}}`)

// startUpstream starts what stands in for WeChat. It reads an upload slowly, so that many are under way at the same time.
func startUpstream() *httptest.Server {
	return httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength > 1<<20 {
			chunk := make([]byte, 256<<10)
			for {
				if _, err := io.ReadFull(r.Body, chunk); err != nil {
					break
				}
				time.Sleep(20 * time.Millisecond)
			}
		} else {
			_, _ = io.Copy(io.Discard, r.Body)
		}
		w.Header().Set("Content-Type", "application/json; encoding=utf-8")
		_, _ = io.WriteString(w, `{"errcode":0,"errmsg":"ok"}`)
	}))
}

// caller makes calls.
type caller struct {
	client *http.Client
	url    string
	body   []byte
}

func newCaller(url string, body []byte) caller {
	return caller{client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: pool}}, url: url, body: body}
}

// call makes a call. An answer that refuses it is an error.
func (c caller) call(ctx context.Context) error {
	method, body := http.MethodGet, io.Reader(nil)
	if c.body != nil {
		method, body = http.MethodPost, bytes.NewReader(c.body)
	}
	r, err := http.NewRequestWithContext(ctx, method, c.url, body)
	if err != nil {
		return err
	}
	if c.body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	res, err := c.client.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK || !bytes.Contains(answer, []byte(`"errcode":0`)) && !bytes.Contains(answer, []byte(`"access_token"`)) {
		return fmt.Errorf("%s: %s", res.Status, answer)
	}
	return nil
}

// closedLoop has some callers call one after the other, for a time. It returns the number of calls.
func closedLoop(ctx context.Context, c caller, callers int, d time.Duration) (int, error) {
	var made atomic.Int64
	var failed atomic.Pointer[error]
	var all sync.WaitGroup
	end := time.Now().Add(d)
	for range callers {
		all.Go(func() {
			for time.Now().Before(end) && failed.Load() == nil {
				if err := c.call(ctx); err != nil {
					failed.CompareAndSwap(nil, &err)
					return
				}
				made.Add(1)
			}
		})
	}
	all.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return int(made.Load()), nil
}

// openLoop makes calls at a rate whatever becomes of them, and returns how long each took from the moment when it was due.
func openLoop(ctx context.Context, c caller, rate int, d time.Duration) ([]time.Duration, error) {
	total := int(d.Seconds() * float64(rate))
	took := make([]time.Duration, total)
	failed := make([]error, total)
	var all sync.WaitGroup
	begin := time.Now()
	for i := range total {
		due := begin.Add(time.Duration(i) * time.Second / time.Duration(rate))
		time.Sleep(time.Until(due))
		all.Go(func() {
			failed[i] = c.call(ctx)
			took[i] = time.Since(due)
		})
	}
	all.Wait()
	slices.Sort(took)
	return took, errors.Join(failed...)
}

// uploads makes uploads at the same time.
func uploads(ctx context.Context, c caller, n int) error {
	failed := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { failed[i] = c.call(ctx) })
	}
	all.Wait()
	return errors.Join(failed...)
}
