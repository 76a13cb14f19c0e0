// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

const (
	// workers is how many calls of each caller may be under way.
	workers = 2
	// think is the time between two calls of a worker.
	think = 60 * time.Millisecond
	// patience is how long a call may take, as with the SDKs.
	patience = 30 * time.Second
)

// The kinds of calls. An image is a POST, and a login carries a code that works once.
const (
	kindCall  = "call"
	kindImage = "image"
	kindLogin = "login"
)

// load is what all callers do, and what became of it.
type load struct {
	wechat *wechattest.Server
	// repeatable says that only calls are made that the gateway may repeat in any case, which are neither images nor logins.
	repeatable atomic.Bool

	mu    sync.Mutex
	calls []call
}

// caller makes calls of a kind. A login uses the code.
type caller interface {
	do(ctx context.Context, kind, code string) error
}

// run makes one call after the other until ctx ends.
func (l *load) run(ctx context.Context, name string, c caller) {
	kinds := []string{kindCall, kindImage, kindLogin}
	for i := 0; ctx.Err() == nil; i++ {
		kind := kinds[i%len(kinds)]
		if l.repeatable.Load() {
			kind = kindCall
		}
		code := ""
		if kind == kindLogin {
			code = l.wechat.NewCode(appID, wechattest.CodeMiniProgram, "").Code
		}
		made := call{caller: name, kind: kind, from: time.Now()}
		made.err = c.do(ctx, kind, code)
		made.to = time.Now()
		if ctx.Err() != nil {
			return // it was broken off by the end of the test
		}
		l.mu.Lock()
		l.calls = append(l.calls, made)
		l.mu.Unlock()
		time.Sleep(think)
	}
}

// made returns all calls so far.
func (l *load) made() []call {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]call(nil), l.calls...)
}

// secrets are what errors of net/http have in their text.
var secrets = regexp.MustCompile(`(access_token|secret)=[^&"\s]*`)

func hide(err error) error {
	if err == nil {
		return nil
	}
	return errors.New(secrets.ReplaceAllString(err.Error(), "$1=…"))
}

// program is a caller that has an SDK's program make the calls. The program can be replaced while it is used.
type program struct {
	client  *http.Client
	current atomic.Pointer[process]
	// use is held for reading by each call.
	use sync.RWMutex
}

func (p *program) do(ctx context.Context, kind, code string) error {
	p.use.RLock()
	defer p.use.RUnlock()
	target := p.current.Load().url + "/" + kind
	if code != "" {
		target += "?code=" + url.QueryEscape(code)
	}
	_, err := fetch(ctx, p.client, http.MethodGet, target, "", "")
	return err
}

// replace lets calls go to another process, and returns the one before when none of its calls is under way.
func (p *program) replace(next *process) (before *process) {
	p.use.Lock()
	defer p.use.Unlock()
	return p.current.Swap(next)
}

// direct is a caller that makes the calls itself: as a ServiceAccount at the gateway, or with WeChat's own secrets at a host.
type direct struct {
	client *http.Client
	// host is where it calls.
	host func() string
	// bearer is the ServiceAccount's token, if it is one, and token and secret return WeChat's token and the AppSecret otherwise.
	bearer func() string
	token  func() string
	secret string
}

func (d *direct) do(ctx context.Context, kind, code string) error {
	bearer, query := "", url.Values{}
	if d.bearer != nil {
		bearer = d.bearer()
	}
	if d.token != nil && kind != kindLogin {
		query.Set("access_token", d.token())
	}
	method, path, body := http.MethodGet, "/cgi-bin/getcallbackip", ""
	switch kind {
	case kindImage:
		method, path, body = http.MethodPost, "/wxa/getwxacodeunlimit", `{"scene":"id=1","page":"pages/index"}`
	case kindLogin:
		path = "/sns/jscode2session"
		query.Set("appid", appID)
		if d.secret != "" {
			query.Set("secret", d.secret)
		}
		query.Set("js_code", code)
		query.Set("grant_type", "authorization_code")
	}
	answer, err := fetch(ctx, d.client, method, d.host()+path+"?"+query.Encode(), body, bearer)
	if err != nil {
		return err
	}
	if kind == kindImage {
		if bytes.HasPrefix(answer, []byte("{")) {
			return fmt.Errorf("no image: %s", answer)
		}
		return nil
	}
	wanted := map[string]string{kindCall: "ip_list", kindLogin: "openid"}[kind]
	fields := map[string]any{}
	if json.Unmarshal(answer, &fields) != nil || fields[wanted] == nil {
		return fmt.Errorf("no %s: %s", wanted, answer)
	}
	return nil
}

// fetch makes a request and returns the answer.
func fetch(ctx context.Context, client *http.Client, method, target, body, bearer string) ([]byte, error) {
	var content io.Reader
	if body != "" {
		content = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, target, content)
	if err != nil {
		return nil, hide(err)
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, hide(err)
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, hide(err)
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", res.Status, bytes.TrimSpace(answer))
	}
	return answer, nil
}

// newHTTPClient returns a client with connections of its own, which it keeps or not.
func newHTTPClient(keep bool) *http.Client {
	return &http.Client{Timeout: patience + 10*time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: workers, DisableKeepAlives: !keep}}
}
