// SPDX-License-Identifier: Apache-2.0

package wechattest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

const (
	appID  = "wx0123456789abcdef"
	other  = "wxfedcba9876543210"
	secret = "0123456789abcdef0123456789abcdef"
)

// epoch is not a whole second, so that remaining lives are not either.
var epoch = time.Date(2026, 3, 4, 5, 6, 7, 250_000_000, time.UTC)

// fixture is a server whose clock stands still, with two apps.
type fixture struct {
	*Server
	t    *testing.T
	http *http.Client
}

func newFixture(t *testing.T, o Options) *fixture {
	t.Helper()
	if o.Now == nil {
		o.Now = func() time.Time { return epoch }
	}
	s, err := NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(func() {
		s.Close()
		transport.CloseIdleConnections()
	})
	s.SetApp(App{ID: appID, Secret: secret})
	s.SetApp(App{ID: other, Secret: secret})
	return &fixture{Server: s, t: t, http: &http.Client{Transport: transport, Timeout: 20 * time.Second}}
}

// answer is all that an answer has.
type answer struct {
	status    int
	header    http.Header
	body      []byte
	Token     string `json:"access_token"`
	ExpiresIn int    `json:"expires_in"`
	Errcode   *int   `json:"errcode"`
	Errmsg    string `json:"errmsg"`
	Ticket    string `json:"ticket"`
}

// code is the errcode, 0 for none.
func (a answer) code() int {
	if a.Errcode == nil {
		return 0
	}
	return *a.Errcode
}

func (f *fixture) do(method, path, body string) (answer, error) {
	req, err := http.NewRequestWithContext(f.t.Context(), method, f.URL()+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	res, err := f.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = res.Body.Close() }()
	a := answer{status: res.StatusCode, header: res.Header}
	if a.body, err = io.ReadAll(res.Body); err != nil {
		return a, err
	}
	_ = json.Unmarshal(a.body, &a) // pictures and faults are no JSON
	return a, nil
}

func (f *fixture) must(method, path, body string) answer {
	f.t.Helper()
	a, err := f.do(method, path, body)
	if err != nil {
		f.t.Fatal(err)
	}
	return a
}

func stableBody(id string, force bool) string {
	return fmt.Sprintf(`{"grant_type":"client_credential","appid":%q,"secret":%q,"force_refresh":%t}`, id, secret, force)
}

func (f *fixture) stable(id string) answer {
	f.t.Helper()
	return f.must(http.MethodPost, "/cgi-bin/stable_token", stableBody(id, false))
}

func (f *fixture) force(id string) answer {
	f.t.Helper()
	return f.must(http.MethodPost, "/cgi-bin/stable_token", stableBody(id, true))
}

func legacyPath(id, appSecret string) string {
	return "/cgi-bin/token?" + url.Values{"grant_type": {grantType}, "appid": {id}, "secret": {appSecret}}.Encode()
}

func (f *fixture) legacy(id string) answer {
	f.t.Helper()
	return f.must(http.MethodGet, legacyPath(id, secret), "")
}

func (f *fixture) probe(token string) int {
	f.t.Helper()
	return f.must(http.MethodGet, "/cgi-bin/get_api_domain_ip?access_token="+url.QueryEscape(token), "").code()
}

// wantProbe checks a token by the ledger and by a call.
func (f *fixture) wantProbe(what, token string, errcode int) {
	f.t.Helper()
	if got := f.probe(token); got != errcode {
		f.t.Errorf("%s: a call got errcode %d, want %d", what, got, errcode)
	}
	if got := f.Valid(token); got != (errcode == 0) {
		f.t.Errorf("%s: Valid is %t, want %t", what, got, errcode == 0)
	}
}

func (f *fixture) wantCode(what string, a answer, errcode int) {
	f.t.Helper()
	if a.code() != errcode || a.status != http.StatusOK {
		f.t.Errorf("%s: HTTP %d, errcode %d (%s), want HTTP 200, errcode %d", what, a.status, a.code(), a.Errmsg, errcode)
	}
	if errcode == 0 && a.Token == "" && a.Ticket == "" {
		f.t.Errorf("%s: no token in %q", what, a.body)
	}
}

// lastCall is the newest one.
func (f *fixture) lastCall() Call {
	f.t.Helper()
	calls := f.Calls(Filter{})
	if len(calls) == 0 {
		f.t.Fatal("no call was written down")
	}
	return calls[len(calls)-1]
}

// eventually waits for what another goroutine of the server does soon.
func (f *fixture) eventually(what string, ok func() bool) {
	f.t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			f.t.Fatalf("%s: not within 10 s", what)
		}
	}
}
