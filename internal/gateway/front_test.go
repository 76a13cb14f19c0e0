// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

const (
	realToken = "57_the-real-token-of-the-app"
	appSecret = "00112233445566778899aabbccddeeff"
	ticket    = "the-jsapi-ticket"

	otherAppID = "wxfedcba9876543210"
	aJWT       = "eyJh.eyJz.c2ln"
)

// Keys of the clients of frontPolicy, besides key.
const (
	oldKey    = "11111111111111111111111111111111"
	pastKey   = "22222222222222222222222222222222"
	plainKey  = "33333333333333333333333333333333"
	emptyKey  = "44444444444444444444444444444444"
	unlabeled = "55555555555555555555555555555555"
)

// theKey is the value of key.
var theKey = key.Reveal()

func account(namespace, name string) types.NamespacedName {
	return types.NamespacedName{Namespace: namespace, Name: name}
}

// frontClients are clients of several kinds.
func frontClients() map[string]*Client {
	shop := &Account{
		Name: account("shop", "shop"), AppID: appID, Token: token.NewValue(realToken), ExpiresAt: now.Add(time.Hour),
		AppSecret:   token.NewValue(appSecret),
		TicketTypes: []v1alpha1.TicketType{v1alpha1.TicketJSAPI, v1alpha1.TicketSDK, v1alpha1.TicketWXCard},
		Tickets: map[v1alpha1.TicketType]Ticket{
			v1alpha1.TicketJSAPI: {Value: token.NewValue(ticket), ExpiresAt: now.Add(time.Hour)},
			v1alpha1.TicketSDK:   {Value: token.NewValue("old"), ExpiresAt: now},
		},
	}
	empty := &Account{Name: account("empty", "empty"), AppID: otherAppID, Token: token.NewValue("57_expired"), ExpiresAt: now.Add(-time.Hour)}
	keys := func(current string, before ...Key) []Key {
		return append([]Key{NewKey(token.NewValue(current), time.Time{})}, before...)
	}
	before := func(value string, until time.Time) Key {
		return NewKey(token.NewValue(value), until)
	}
	accounts := func(names ...types.NamespacedName) map[types.NamespacedName]bool {
		all := map[types.NamespacedName]bool{}
		for _, name := range names {
			all[name] = true
		}
		return all
	}
	clients := map[string]*Client{
		"shop-api": {
			Keys:            keys(theKey, before(oldKey, now.Add(time.Minute)), before(pastKey, now.Add(-time.Minute))),
			ServiceAccounts: accounts(account("shop", "api"), account("web", "front"), account("shop", "two")),
			Paths:           []string{"/cgi-bin/user/*", "/wxa/getwxacode", "/cgi-bin/ticket/getticket", "/cgi-bin/clear_quota", "/sns/*"}, Login: true, Account: shop,
		},
		"plain":      {Keys: keys(plainKey), ServiceAccounts: accounts(account("shop", "two")), Paths: []string{"/wxa/*"}, Account: shop},
		"web-thief":  {ServiceAccounts: accounts(account("web", "front"), account("shop", "api")), Paths: []string{"/*"}, Account: empty},
		"empty":      {Keys: keys(emptyKey), Paths: []string{"/*"}, Account: empty},
		"unlabelled": {Keys: keys(unlabeled), Paths: []string{"/*"}, Login: true, Account: empty},
	}
	for name, c := range clients {
		c.UID, c.Name = types.UID("uid-of-"+name), account(c.Account.Name.Namespace, name)
	}
	return clients
}

func frontPolicy() *Policy {
	var all []*Client
	for _, c := range frontClients() {
		all = append(all, c)
	}
	return NewPolicy(all)
}

// bought returns a token of the gateway for a client of frontClients.
func bought(client, withKey string, at time.Time) string {
	c, k := frontClients()[client], token.NewValue(withKey)
	return signed(Claims{Client: c.UID, AppID: c.Account.AppID, Key: k.Fingerprint(), IssuedAt: at}, k)
}

// fixedSource is a Source whose policy never changes.
type fixedSource struct{ only *Policy }

func (s fixedSource) Policy() (*Policy, <-chan struct{}) { return s.only, nil }

// fakeReviews knows tokens by heart.
type fakeReviews map[string]types.NamespacedName

func (f fakeReviews) Review(_ context.Context, bearer string, _ netip.Addr, _ func(types.NamespacedName) bool) (types.NamespacedName, error) {
	switch bearer {
	case "busy.a.b":
		return types.NamespacedName{}, ErrTooManyReviews
	case "down.a.b":
		return types.NamespacedName{}, ErrNoReview
	}
	if name, ok := f[bearer]; ok {
		return name, nil
	}
	return types.NamespacedName{}, ErrBearerRefused
}

// relayed is what the relay was asked to send.
type relayed struct {
	path, query, token, client string
	once                       bool
}

// front is a Gateway behind a real server, with a relay that records.
type front struct {
	*Gateway

	addr string
	// hangUp ends the caller's side of a connection after the request, for a server that waits for a body that does not come.
	hangUp bool

	mu      sync.Mutex
	relayed []relayed
	calls   []Call
}

func newFront(t *testing.T, policy *Policy, change ...func(*Options)) *front {
	t.Helper()
	f := &front{}
	o := Options{
		Source: fixedSource{policy}, Relay: f, Now: func() time.Time { return now }, NewID: func() string { return "ID" },
		Reviewer: fakeReviews{
			aJWT: account("shop", "api"), "web.a.b": account("web", "front"), "two.a.b": account("shop", "two"), "none.a.b": account("web", "other"),
		},
		Record: func(c *Call) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.calls = append(f.calls, *c)
		},
	}
	for _, c := range change {
		c(&o)
	}
	f.Gateway = New(o)
	server := httptest.NewUnstartedServer(f.Gateway)
	server.Config.DisableGeneralOptionsHandler = true
	server.Start()
	t.Cleanup(server.Close)
	f.addr = server.Listener.Addr().String()
	return f
}

// relay implements relayer.
func (f *front) relay(w http.ResponseWriter, r *http.Request, fw forward) {
	_, _ = io.Copy(io.Discard, r.Body)
	got := relayed{path: fw.path, query: fw.query(fw.token), token: fw.token.Reveal(), once: fw.once}
	if fw.call.Client != nil {
		got.client = fw.call.Client.Name.Name
	}
	f.mu.Lock()
	f.relayed = append(f.relayed, got)
	f.mu.Unlock()
	fw.call.Outcome = OutcomeRelayed
	_, _ = io.WriteString(w, "{}")
}

// reply is an answer as it came, and what the gateway made of the call.
type reply struct {
	*http.Response

	raw, body string
	errcode   int
	errmsg    string
	call      Call
	relayed   *relayed
}

// send sends raw bytes on a connection of their own, and reads until it is closed.
func (f *front) send(t *testing.T, raw string) reply {
	t.Helper()
	conn, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, raw); err != nil {
		t.Fatal(err)
	}
	if tcp, ok := conn.(*net.TCPConn); ok && f.hangUp {
		_ = tcp.CloseWrite()
	}
	all, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(all)), nil)
	if err != nil {
		t.Fatalf("%q: %v", all, err)
	}
	r := reply{Response: response, raw: string(all)}
	body, _ := io.ReadAll(r.Body)
	_ = response.Body.Close()
	r.body = string(body)
	var said struct {
		Code int    `json:"errcode"`
		Text string `json:"errmsg"`
	}
	_ = json.Unmarshal(body, &said)
	r.errcode, r.errmsg = said.Code, said.Text
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := len(f.calls); n > 0 {
		r.call = f.calls[n-1]
	}
	if n := len(f.relayed); n > 0 {
		r.relayed = &f.relayed[n-1]
	}
	f.calls, f.relayed = nil, nil
	return r
}

// request returns the bytes of a request without a body, after which the server closes the connection.
func request(line string, headers ...string) string {
	var out strings.Builder
	out.WriteString(line + " HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n")
	for _, h := range headers {
		out.WriteString(h + "\r\n")
	}
	return out.String() + "\r\n"
}

func posted(target, body string, headers ...string) string {
	return request("POST "+target, append(headers, fmt.Sprintf("Content-Length: %d", len(body)))...) + body
}

func bearerHeader(value string) string { return "Authorization: Bearer " + value }

// row is a request and what becomes of it.
type row struct {
	raw     string
	errcode int
	reason  string
	// relayed is nil for an answer of the gateway's own.
	relayed *relayed
	// answer is part of such an answer.
	answer string
}

// check sends each request to a gateway of its own and compares.
func check(t *testing.T, rows map[string]row) {
	for name, test := range rows {
		t.Run(name, func(t *testing.T) {
			f := newFront(t, frontPolicy())
			got := f.send(t, test.raw)
			if got.StatusCode != http.StatusOK {
				t.Fatalf("HTTP %d: %s", got.StatusCode, got.raw)
			}
			if got.errcode != test.errcode || got.call.Reason != test.reason || got.call.Errcode != test.errcode {
				t.Errorf("errcode %d, reason %q (%s), want %d, %q", got.errcode, got.call.Reason, got.errmsg, test.errcode, test.reason)
			}
			switch {
			case (got.relayed == nil) != (test.relayed == nil):
				t.Fatalf("relayed %+v, want %+v", got.relayed, test.relayed)
			case test.relayed != nil && *got.relayed != *test.relayed:
				t.Errorf("relayed %+v, want %+v", *got.relayed, *test.relayed)
			case test.relayed == nil && (got.Header.Get(requestIDHeader) != "ID" || got.Header.Get("Content-Type") != "application/json"):
				t.Errorf("headers %v", got.Header)
			case !strings.Contains(got.body, test.answer):
				t.Errorf("%s, want %s", got.body, test.answer)
			}
			if got.call.Outcome == "" || got.call.ID != "ID" || got.call.Status != http.StatusOK {
				t.Errorf("recorded %+v", got.call)
			}
			for _, secret := range []string{theKey, oldKey, appSecret, realToken} {
				if strings.Contains(got.raw, secret) {
					t.Errorf("the answer has a secret: %s", got.raw)
				}
			}
		})
	}
}

func TestRequestIsMalformed(t *testing.T) {
	good := bought("shop-api", theKey, now)
	const path = "/cgi-bin/user/info"
	get := func(target string, headers ...string) string { return request("GET "+target, headers...) }
	check(t, map[string]row{
		"absolute form":         {raw: get("http://evil/cgi-bin/user/info?access_token=" + good), errcode: codeNotAllowed, reason: "target"},
		"another scheme":        {raw: get("wx:cgi-bin/user/info"), errcode: codeNotAllowed, reason: "target"},
		"dots":                  {raw: get("/x/../cgi-bin/user/info?access_token=" + good), errcode: codeNotAllowed, reason: "target"},
		"escaped slash":         {raw: get("/cgi-bin%2ftoken"), errcode: codeNotAllowed, reason: "target"},
		"escaped dots":          {raw: get("/%2e%2e/token"), errcode: codeNotAllowed, reason: "target"},
		"backslash":             {raw: get(`/cgi-bin\token`), errcode: codeNotAllowed, reason: "target"},
		"path parameter":        {raw: get("/cgi-bin/token;a=b"), errcode: codeNotAllowed, reason: "target"},
		"NUL":                   {raw: get("/cgi-bin/token%00"), errcode: codeNotAllowed, reason: "target"},
		"two tokens":            {raw: get(path + "?access_token=" + good + "&access_token=x"), errcode: codeNoToken, reason: "target"},
		"escaped name":          {raw: get(path + "?access%5Ftoken=" + good), errcode: codeNoToken, reason: "target"},
		"another case":          {raw: get(path + "?Access_Token=" + good), errcode: codeNoToken, reason: "target"},
		"an array":              {raw: get(path + "?access_token[]=" + good), errcode: codeNoToken, reason: "target"},
		"semicolon":             {raw: get(path + "?a=1;access_token=x&access_token=" + good), errcode: codeNotAllowed, reason: "target"},
		"bad escape":            {raw: get(path + "?a=%x&access_token=" + good), errcode: codeNotAllowed, reason: "target"},
		"10,001 pairs":          {raw: get(path + "?" + strings.Repeat("a&", 10_000) + "access_token=" + good), errcode: codeNotAllowed, reason: "target"},
		"component token":       {raw: get(path + "?component_access_token=x&access_token=" + good), errcode: codeNoToken, reason: "target"},
		"OPTIONS of all":        {raw: request("OPTIONS *"), errcode: codeNeedsPost, reason: "method"},
		"OPTIONS":               {raw: request("OPTIONS "+path, "Origin: https://evil", "Access-Control-Request-Method: GET"), errcode: codeNeedsPost, reason: "method"},
		"CONNECT":               {raw: request("CONNECT evil:443"), errcode: codeNeedsPost, reason: "method"},
		"PUT":                   {raw: request("PUT " + path + "?access_token=" + good), errcode: codeNeedsPost, reason: "method"},
		"a method in lower":     {raw: request("get " + path + "?access_token=" + good), errcode: codeNeedsPost, reason: "method"},
		"loop":                  {raw: get(path+"?access_token="+good, "X-WeChat-Gateway: 1"), errcode: codeBusy, reason: "loop"},
		"loop, empty":           {raw: get(path+"?access_token="+good, "x-wechat-gateway:"), errcode: codeBusy, reason: "loop"},
		"two Authorizations":    {raw: get(path, bearerHeader(aJWT), bearerHeader(aJWT)), errcode: codeTokenInvalid, reason: "authorization"},
		"Basic":                 {raw: get(path, "Authorization: Basic YTpi"), errcode: codeTokenInvalid, reason: "authorization"},
		"Basic beside a token":  {raw: get(path+"?access_token="+good, "Authorization: Basic YTpi"), errcode: codeTokenInvalid, reason: "authorization"},
		"upgrade":               {raw: get(path+"?access_token="+good, "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"), errcode: codeNotAllowed, reason: "upgrade"},
		"a slash twice":         {raw: get("/cgi-bin//user///info?access_token=" + good), relayed: &relayed{path, "access_token=" + realToken, realToken, "shop-api", false}},
		"a method of somewhere": {raw: get(path+"?access_token="+good, "X-HTTP-Method-Override: DELETE"), relayed: &relayed{path, "access_token=" + realToken, realToken, "shop-api", false}},
		"both lengths": {raw: "POST " + path + "?access_token=" + good + " HTTP/1.1\r\nHost: g\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n",
			relayed: &relayed{path, "access_token=" + realToken, realToken, "shop-api", false}},
	})
}

// A refusal comes before the caller is asked for the body.
func TestExpectIsRefusedFirst(t *testing.T) {
	f := newFront(t, frontPolicy())
	f.hangUp = true
	const head = " HTTP/1.1\r\nHost: g\r\nContent-Length: 5\r\nExpect: 100-continue\r\n"
	got := f.send(t, "POST /cgi-bin/user/info?access_token=x"+head+"\r\n")
	if got.errcode != codeTokenInvalid || strings.Contains(got.raw, "100 Continue") {
		t.Errorf("answered %s", got.raw)
	}
	got = f.send(t, "POST /cgi-bin/user/info?access_token="+bought("shop-api", theKey, now)+head+"Connection: close\r\n\r\n12345")
	if got.relayed == nil {
		t.Errorf("answered %s", got.raw)
	}
}

func TestPaths(t *testing.T) {
	get := func(target string) string {
		return request("GET " + target + "?a=1&access_token=" + bought("shop-api", theKey, now) + "&b=%2F")
	}
	const query = "a=1&access_token=" + realToken + "&b=%2F"
	check(t, map[string]row{
		"allowed":                 {raw: get("/wxa/getwxacode"), relayed: &relayed{"/wxa/getwxacode", query, realToken, "shop-api", false}},
		"allowed by a star":       {raw: get("/cgi-bin/user/tag/get"), relayed: &relayed{"/cgi-bin/user/tag/get", query, realToken, "shop-api", false}},
		"not listed":              {raw: get("/cgi-bin/menu/create"), errcode: codeNotAllowed, reason: "path"},
		"longer":                  {raw: get("/wxa/getwxacodeunlimit"), errcode: codeNotAllowed, reason: "path"},
		"another case":            {raw: get("/WXA/getwxacode"), errcode: codeNotAllowed, reason: "path"},
		"the root":                {raw: get("/"), errcode: codeNotAllowed, reason: "path"},
		"never, though listed":    {raw: get("/cgi-bin/clear_quota"), errcode: codeNotAllowed, reason: "never_passed_on"},
		"never, with a slash":     {raw: get("/cgi-bin/clear_quota/"), errcode: codeNotAllowed, reason: "never_passed_on"},
		"never, in another case":  {raw: get("/cgi-bin/Clear_Quota/v2"), errcode: codeNotAllowed, reason: "never_passed_on"},
		"never below sns":         {raw: get("/sns/other"), errcode: codeNotAllowed, reason: "never_passed_on"},
		"never a component":       {raw: get("/cgi-bin/component/api_query_auth"), errcode: codeNotAllowed, reason: "never_passed_on"},
		"the token by its case":   {raw: get("/CGI-BIN/TOKEN"), errcode: codeNoAppID, reason: "appid"},
		"the token by two //":     {raw: get("/cgi-bin//token/"), errcode: codeNoAppID, reason: "appid"},
		"POST with the same":      {raw: posted("/wxa/getwxacode?access_token="+bought("shop-api", theKey, now), "{}"), relayed: &relayed{"/wxa/getwxacode", "access_token=" + realToken, realToken, "shop-api", false}},
		"no token in the store":   {raw: request("GET /a?access_token=" + bought("empty", emptyKey, now)), errcode: codeBusy, reason: "no_token", answer: "since 2026-03-01T11:00:00Z"},
		"a host in the path":      {raw: request("GET //evil/cgi-bin/x?access_token=" + bought("shop-api", theKey, now)), errcode: codeNotAllowed, reason: "path"},
		"nobody on another path":  {raw: request("GET /cgi-bin/user/info"), errcode: codeNoToken, reason: "no_token_given"},
		"nobody, an empty token":  {raw: request("GET /cgi-bin/user/info?access_token="), errcode: codeNoToken, reason: "no_token_given"},
		"nobody on a path of all": {raw: request("GET /"), errcode: codeNoToken, reason: "no_token_given"},
	})
}

func TestTokensOfCallers(t *testing.T) {
	const path = "/cgi-bin/user/info"
	good := bought("shop-api", theKey, now)
	get := func(value string) string { return request("GET " + path + "?access_token=" + value) }
	flipped := func(i int) string {
		b := []byte(good)
		b[i] = map[bool]byte{true: 'B', false: 'A'}[b[i] == 'A']
		return string(b)
	}
	forged := func(change func(*Claims), with string) string {
		c := Claims{Client: frontClients()["shop-api"].UID, AppID: appID, Key: key.Fingerprint(), IssuedAt: now}
		change(&c)
		return signed(c, token.NewValue(with))
	}
	yes := &relayed{path, "access_token=" + realToken, realToken, "shop-api", false}
	check(t, map[string]row{
		"good":                      {raw: get(good), relayed: yes},
		"a bit of the MAC":          {raw: get(flipped(len(good) - 3)), errcode: codeTokenInvalid, reason: "token"},
		"a bit of the claims":       {raw: get(flipped(30)), errcode: codeTokenInvalid, reason: "token"},
		"cut":                       {raw: get(good[:len(good)-1]), errcode: codeTokenInvalid, reason: "token"},
		"padded":                    {raw: get(good + "%3D"), errcode: codeTokenInvalid, reason: "token"},
		"escaped, but the same":     {raw: get("%" + fmt.Sprintf("%02X", good[0]) + good[1:]), relayed: yes},
		"WeChat's own":              {raw: get(realToken), errcode: codeTokenInvalid, reason: "token"},
		"old":                       {raw: get(bought("shop-api", theKey, now.Add(-TokenLife))), errcode: codeTokenExpired, reason: "token_expired"},
		"nearly old":                {raw: get(bought("shop-api", theKey, now.Add(time.Second-TokenLife))), relayed: yes},
		"from the future":           {raw: get(bought("shop-api", theKey, now.Add(maxAhead+time.Second))), errcode: codeTokenInvalid, reason: "token"},
		"of a client that is gone":  {raw: get(forged(func(c *Claims) { c.Client = "gone" }, theKey)), errcode: codeTokenInvalid, reason: "token"},
		"for another client":        {raw: get(forged(func(c *Claims) { c.Client = "uid-of-plain" }, theKey)), errcode: codeTokenInvalid, reason: "token"},
		"for another appid":         {raw: get(forged(func(c *Claims) { c.AppID = otherAppID }, theKey)), errcode: codeTokenInvalid, reason: "token"},
		"signed with another key":   {raw: get(forged(func(*Claims) {}, plainKey)), errcode: codeTokenInvalid, reason: "token"},
		"of a key that is no more":  {raw: get(bought("shop-api", "99999999999999999999999999999999", now)), errcode: codeTokenInvalid, reason: "token"},
		"of the key before":         {raw: get(bought("shop-api", oldKey, now)), relayed: yes},
		"of a key before, in time":  {raw: get(bought("shop-api", pastKey, now.Add(-2*time.Minute))), relayed: yes},
		"of a key before, too late": {raw: get(bought("shop-api", pastKey, now.Add(-time.Minute))), errcode: codeTokenInvalid, reason: "token"},
	})
}

func TestBuyingTokens(t *testing.T) {
	get := func(query string) string { return request("GET /cgi-bin/token?" + query) }
	stable := func(body string) string {
		return posted("/cgi-bin/stable_token", body, "Content-Type: text/plain")
	}
	by := func(key string) string { return "grant_type=client_credential&appid=" + appID + "&secret=" + key }
	sold := `"expires_in":7200}`
	check(t, map[string]row{
		"by GET":                  {raw: get(by(theKey)), answer: sold},
		"without grant_type":      {raw: get("appid=" + appID + "&secret=" + theKey), answer: sold},
		"with neededText":         {raw: get(by(theKey) + "&neededText="), answer: sold},
		"with the key before":     {raw: get(by(oldKey)), answer: sold},
		"with a retired key":      {raw: get(by(pastKey)), errcode: codeKeyWrong, reason: "key_retired"},
		"by POST":                 {raw: posted("/cgi-bin/token?"+by(theKey), ""), errcode: codeNeedsGet, reason: "method"},
		"no appid":                {raw: get("secret=" + theKey), errcode: codeNoAppID, reason: "appid"},
		"no key":                  {raw: get("appid=" + appID), errcode: codeNoKey, reason: "key"},
		"an unknown appid":        {raw: get("appid=wx0000000000000000&secret=" + theKey), errcode: codeUnknownApp, reason: "appid"},
		"another client's appid":  {raw: get("appid=" + otherAppID + "&secret=" + theKey), errcode: codeKeyWrong, reason: "key"},
		"the AppSecret":           {raw: get(by(appSecret)), errcode: codeKeyWrong, reason: "key"},
		"a key in upper case":     {raw: get(by("0123456789ABCDEF0123456789ABCDEF")), errcode: codeKeyWrong, reason: "key"},
		"a key with a newline":    {raw: get(by(theKey + "%0A")), errcode: codeKeyWrong, reason: "key"},
		"two keys":                {raw: get(by(plainKey) + "&secret=" + theKey), errcode: codeKeyWrong, reason: "key"},
		"two keys by case":        {raw: get(by(plainKey) + "&SECRET=" + theKey), errcode: codeKeyWrong, reason: "key"},
		"two appids":              {raw: get(by(theKey) + "&appid=" + appID), errcode: codeUnknownApp, reason: "appid"},
		"no token in the store":   {raw: get("appid=" + otherAppID + "&secret=" + emptyKey), errcode: codeBusy, reason: "no_token"},
		"stable":                  {raw: stable(`{"grant_type":"client_credential","appid":"` + appID + `","secret":"` + theKey + `"}`), answer: sold},
		"stable, forced":          {raw: stable(`{"force_refresh":true,"appid":"` + appID + `","secret":"` + theKey + `"}`), answer: sold},
		"stable, in another case": {raw: posted("/CGI-BIN/STABLE_TOKEN/", `{"appid":"`+appID+`","secret":"`+theKey+`"}`), answer: sold},
		"stable by GET":           {raw: request("GET /cgi-bin/stable_token?" + by(theKey)), errcode: codeNeedsPost, reason: "method"},
		"stable, wrong key":       {raw: stable(`{"appid":"` + appID + `","secret":"` + appSecret + `"}`), errcode: codeKeyWrong, reason: "key"},
		"stable, no JSON":         {raw: stable("appid=" + appID), errcode: codeNoAppID, reason: "body"},
		"stable, no body":         {raw: stable(""), errcode: codeNoAppID, reason: "body"},
		"stable, odd types":       {raw: stable(`{"appid":1,"secret":[]}`), errcode: codeNoAppID, reason: "body"},
		"stable, too long":        {raw: stable(`{"a":"` + strings.Repeat("a", maxTokenBody) + `"}`), errcode: codeNoAppID, reason: "body"},
		"below the token":         {raw: request("GET /cgi-bin/token/x?" + by(theKey)), errcode: codeNoToken, reason: "no_token_given"},
	})
}

// What was bought is good for calls, and does not change the key's time.
func TestBoughtToken(t *testing.T) {
	f := newFront(t, frontPolicy())
	got := f.send(t, request("GET /cgi-bin/token?grant_type=client_credential&appid="+appID+"&secret="+oldKey))
	var answer map[string]any
	if err := json.Unmarshal([]byte(got.body), &answer); err != nil || len(answer) != 2 || strings.HasSuffix(got.body, "\n") {
		t.Fatalf("%q: %v", got.body, err)
	}
	value, _ := answer["access_token"].(string)
	if !regexp.MustCompile(`^[A-Za-z0-9_-]{33,511}$`).MatchString(value) {
		t.Errorf("%d characters: %s", len(value), value)
	}
	if got.call.By != ByKey || got.call.Client == nil || got.call.Kind != KindToken || got.call.Outcome != OutcomeAnswered {
		t.Errorf("recorded %+v", got.call)
	}
	if got = f.send(t, request("GET /cgi-bin/user/info?access_token="+value)); got.relayed == nil || got.call.By != ByToken {
		t.Errorf("answered %s", got.raw)
	}
}

func TestServiceAccounts(t *testing.T) {
	const path = "/wxa/getwxacode"
	get := func(target string, headers ...string) string { return request("GET "+target, headers...) }
	as := func(client string) *relayed {
		return &relayed{path, "access_token=" + realToken, realToken, client, false}
	}
	check(t, map[string]row{
		"of the own namespace":        {raw: get(path, bearerHeader(aJWT)), relayed: as("shop-api")},
		"with an empty access_token":  {raw: get(path+"?access_token=", bearerHeader(aJWT)), relayed: as("shop-api")},
		"with a token of the client":  {raw: get(path+"?access_token="+bought("shop-api", theKey, now), bearerHeader(aJWT)), relayed: as("shop-api")},
		"with a token of another":     {raw: get(path+"?access_token="+bought("plain", plainKey, now), bearerHeader(aJWT)), errcode: codeTokenInvalid, reason: "token"},
		"with WeChat's own token":     {raw: get(path+"?access_token="+realToken, bearerHeader(aJWT)), errcode: codeTokenInvalid, reason: "token"},
		"of another namespace, named": {raw: get(path, bearerHeader("web.a.b"), "X-WeChat-App-Client: shop/shop-api"), relayed: as("shop-api")},
		"of another, not named":       {raw: get(path, bearerHeader("web.a.b")), errcode: codeNotAllowed, reason: "client"},
		"a client that is not there":  {raw: get(path, bearerHeader(aJWT), "X-WeChat-App-Client: shop/none"), errcode: codeNotAllowed, reason: "client"},
		"a client without the names":  {raw: get(path, bearerHeader(aJWT), "X-WeChat-App-Client: shop/plain"), errcode: codeNotAllowed, reason: "client"},
		"a client without a /":        {raw: get(path, bearerHeader(aJWT), "X-WeChat-App-Client: shop-api"), errcode: codeNotAllowed, reason: "client"},
		"two headers":                 {raw: get(path, bearerHeader(aJWT), "X-WeChat-App-Client: shop/shop-api", "X-WeChat-App-Client: shop/plain"), errcode: codeNotAllowed, reason: "client"},
		"two clients":                 {raw: get(path, bearerHeader("two.a.b")), errcode: codeNotAllowed, reason: "client_ambiguous"},
		"one of two clients":          {raw: get(path, bearerHeader("two.a.b"), "X-WeChat-App-Client: shop/plain"), relayed: as("plain")},
		"in no client":                {raw: get(path, bearerHeader("none.a.b")), errcode: codeNotAllowed, reason: "client"},
		"unknown":                     {raw: get(path, bearerHeader("bad.a.b")), errcode: codeTokenInvalid, reason: "bearer"},
		"too many":                    {raw: get(path, bearerHeader("busy.a.b")), errcode: codeTooMany, reason: "reviews"},
		"no API server":               {raw: get(path, bearerHeader("down.a.b")), errcode: codeBusy, reason: "no_review"},
		"a token of the gateway":      {raw: get(path, bearerHeader(bought("shop-api", theKey, now))), relayed: as("shop-api")},
		"a bad one of the gateway":    {raw: get(path, bearerHeader(realToken)), errcode: codeTokenInvalid, reason: "token"},
		"a path that is not listed":   {raw: get("/cgi-bin/menu/create", bearerHeader(aJWT)), errcode: codeNotAllowed, reason: "path"},
	})
}

func TestLogin(t *testing.T) {
	const path = "/sns/jscode2session"
	get := func(query string, headers ...string) string { return request("GET "+path+"?"+query, headers...) }
	with := func(key string) string {
		return "appid=" + appID + "&secret=" + key + "&js_code=c&grant_type=authorization_code"
	}
	const sent = "appid=" + appID + "&js_code=c&grant_type=authorization_code&secret=" + appSecret
	yes := &relayed{path, sent, "", "shop-api", true}
	own := "&access_token=" + bought("shop-api", theKey, now)
	refresh := "/sns/oauth2/refresh_token?appid=" + appID + "&grant_type=refresh_token&refresh_token=r"
	check(t, map[string]row{
		"with the key":             {raw: get(with(theKey)), relayed: yes},
		"with the key before":      {raw: get(with(oldKey)), relayed: yes},
		"with a retired key":       {raw: get(with(pastKey)), errcode: codeKeyWrong, reason: "key_retired"},
		"with its own token":       {raw: get(with(theKey) + own), relayed: yes},
		"with another's token":     {raw: get(with(theKey) + "&access_token=" + bought("plain", plainKey, now)), errcode: codeTokenInvalid, reason: "token"},
		"with WeChat's token":      {raw: get(with(theKey) + "&access_token=" + realToken), errcode: codeTokenInvalid, reason: "token"},
		"with its token alone":     {raw: get("appid=" + appID + "&js_code=c" + own), errcode: codeNoKey, reason: "key"},
		"with a token in a header": {raw: get("appid="+appID+"&js_code=c", bearerHeader(bought("shop-api", theKey, now))), errcode: codeNoKey, reason: "key"},
		"two kinds of clients":     {raw: get(with(theKey), bearerHeader(bought("plain", plainKey, now))), errcode: codeKeyWrong, reason: "key"},
		"with the AppSecret":       {raw: get(with(appSecret)), errcode: codeKeyWrong, reason: "key"},
		"secret twice":             {raw: get(with(theKey) + "&secret=" + theKey), errcode: codeKeyWrong, reason: "key"},
		"secret in two cases":      {raw: get(with(theKey) + "&Secret=" + theKey), errcode: codeKeyWrong, reason: "key"},
		"secret as an array":       {raw: get(with(theKey) + "&secret[]=" + theKey), errcode: codeKeyWrong, reason: "key"},
		"appid twice":              {raw: get(with(theKey) + "&appid=" + otherAppID), errcode: codeUnknownApp, reason: "appid"},
		"no appid":                 {raw: get("secret=" + theKey), errcode: codeNoAppID, reason: "appid"},
		"another appid":            {raw: get("secret=" + theKey + "&appid=" + otherAppID), errcode: codeKeyWrong, reason: "key"},
		"without login":            {raw: get(with(plainKey)), errcode: codeNotAllowed, reason: "login"},
		"without the label":        {raw: get("secret=" + unlabeled + "&appid=" + otherAppID), errcode: codeNotAllowed, reason: "credentials"},
		"by POST":                  {raw: posted(path+"?"+with(theKey), "appid=x&secret=y"), errcode: codeNeedsGet, reason: "method"},
		"nobody":                   {raw: get("appid=" + appID + "&js_code=c"), errcode: codeNoKey, reason: "key"},
		"ServiceAccount":           {raw: get("appid="+appID+"&js_code=c&grant_type=authorization_code", bearerHeader(aJWT)), relayed: yes},
		"ServiceAccount, secret":   {raw: get(with("placeholder"), bearerHeader(aJWT)), relayed: yes},
		"ServiceAccount, no appid": {raw: get("js_code=c", bearerHeader(aJWT)), errcode: codeNoAppID, reason: "appid"},
		"ServiceAccount, another":  {raw: get("js_code=c&appid="+otherAppID, bearerHeader(aJWT)), errcode: codeUnknownApp, reason: "appid"},
		"ServiceAccount, refused":  {raw: get(with(theKey), bearerHeader("bad.a.b")), errcode: codeTokenInvalid, reason: "bearer"},
		"OAuth": {raw: request("GET /sns/oauth2/access_token?appid=" + appID + "&secret=" + theKey + "&code=c"),
			relayed: &relayed{"/sns/oauth2/access_token", "appid=" + appID + "&code=c&secret=" + appSecret, "", "shop-api", true}},
		"refresh without a key":     {raw: request("GET " + refresh), relayed: &relayed{"/sns/oauth2/refresh_token", refresh[len("/sns/oauth2/refresh_token?"):], "", "", true}},
		"refresh with a token":      {raw: request("GET " + refresh + own), relayed: &relayed{"/sns/oauth2/refresh_token", refresh[len("/sns/oauth2/refresh_token?"):], "", "shop-api", true}},
		"refresh with WeChat's":     {raw: request("GET " + refresh + "&access_token=" + realToken), errcode: codeTokenInvalid, reason: "token"},
		"refresh of no client":      {raw: request("GET /sns/oauth2/refresh_token?appid=wx0000000000000000&refresh_token=r"), errcode: codeUnknownApp, reason: "appid"},
		"refresh with a wrong key":  {raw: request("GET " + refresh + "&secret=" + appSecret), errcode: codeKeyWrong, reason: "key"},
		"refresh with a good key":   {raw: request("GET " + refresh + "&secret=" + theKey), relayed: &relayed{"/sns/oauth2/refresh_token", refresh[len("/sns/oauth2/refresh_token?"):] + "&secret=" + appSecret, "", "shop-api", true}},
		"refresh for no login":      {raw: request("GET " + refresh + "&access_token=" + bought("plain", plainKey, now)), errcode: codeNotAllowed, reason: "login"},
		"refresh of a bad Bearer":   {raw: request("GET "+refresh, bearerHeader("bad.a.b")), errcode: codeTokenInvalid, reason: "bearer"},
		"refresh without an appid":  {raw: request("GET /sns/oauth2/refresh_token?refresh_token=r"), errcode: codeNoAppID, reason: "appid"},
		"what only starts the same": {raw: request("GET /sns/jscode2session/x?appid=" + appID + "&secret=" + theKey), errcode: codeNoToken, reason: "no_token_given"},
	})
}

func TestUserPaths(t *testing.T) {
	const path = "/sns/userinfo"
	const query = "access_token=a-user%27s&openid=o"
	get := func(headers ...string) string { return request("GET "+path+"?"+query, headers...) }
	as := func(client string) *relayed { return &relayed{path, query, "", client, false} }
	check(t, map[string]row{
		"nobody":                  {raw: get(), relayed: as("")},
		"a ServiceAccount":        {raw: get(bearerHeader(aJWT)), relayed: as("shop-api")},
		"a token in a header":     {raw: get(bearerHeader(bought("shop-api", theKey, now))), relayed: as("shop-api")},
		"a bad one":               {raw: get(bearerHeader(realToken)), errcode: codeTokenInvalid, reason: "token"},
		"a bad ServiceAccount":    {raw: get(bearerHeader("bad.a.b")), errcode: codeTokenInvalid, reason: "bearer"},
		"no token of a user":      {raw: request("GET " + path + "?openid=o"), errcode: codeNoToken, reason: "no_token_given"},
		"a token of the gateway":  {raw: request("GET " + path + "?access_token=" + bought("shop-api", theKey, now)), errcode: codeTokenInvalid, reason: "token"},
		"the app's token":         {raw: request("GET " + path + "?access_token=" + realToken), errcode: codeTokenInvalid, reason: "token"},
		"by POST":                 {raw: posted(path+"?"+query, ""), errcode: codeNeedsGet, reason: "method"},
		"whether a token is good": {raw: request("GET /sns/auth?" + query), relayed: &relayed{"/sns/auth", query, "", "", false}},
	})
}

func TestStrangersAreLimited(t *testing.T) {
	f := newFront(t, frontPolicy())
	const user, refresh = "GET /sns/auth?access_token=u&openid=o", "GET /sns/oauth2/refresh_token?appid=" + appID + "&refresh_token=r"
	for i := range userCallsBurst {
		if got := f.send(t, request([]string{user, refresh}[i%2])); got.relayed == nil {
			t.Fatalf("call %d: %s", i, got.raw)
		}
	}
	for _, line := range []string{user, refresh} {
		if got := f.send(t, request(line)); got.errcode != codeTooMany || got.call.Outcome != OutcomeLimited || got.call.Reason != "stranger_rate" {
			t.Errorf("answered %s, recorded %+v", got.body, got.call)
		}
	}
	if got := f.send(t, request(user, bearerHeader(aJWT))); got.relayed == nil {
		t.Errorf("a known caller: %s", got.raw)
	}

	noLogin := frontClients()
	delete(noLogin, "shop-api")
	f = newFront(t, NewPolicy([]*Client{noLogin["plain"]}))
	for _, line := range []string{user, refresh} {
		if got := f.send(t, request(line)); got.errcode != codeNotAllowed || got.call.Reason != "login" {
			t.Errorf("without a login client: %s", got.raw)
		}
	}
}

func TestTickets(t *testing.T) {
	const path = "/cgi-bin/ticket/getticket"
	get := func(query string) string {
		return request("GET " + path + "?access_token=" + bought("shop-api", theKey, now) + query)
	}
	check(t, map[string]row{
		"jsapi":           {raw: get("&type=jsapi"), answer: `{"errcode":0,"errmsg":"ok","ticket":"` + ticket + `","expires_in":3600}`},
		"by POST":         {raw: request("POST " + path + "?type=jsapi&access_token=" + bought("shop-api", theKey, now)), answer: ticket},
		"by an account":   {raw: request("GET "+path+"?type=jsapi", bearerHeader(aJWT)), answer: ticket},
		"in another case": {raw: request("GET /cgi-bin/Ticket/GetTicket/?type=jsapi", bearerHeader(aJWT)), answer: ticket},
		"expired":         {raw: get("&type=sdk"), errcode: codeBusy, reason: "no_ticket", answer: "since 2026-03-01T12:00:00Z"},
		"not there yet":   {raw: get("&type=wx_card"), errcode: codeBusy, reason: "no_ticket", answer: "no wx_card ticket yet"},
		"no such type":    {raw: get("&type=agent_config"), errcode: codeNotAllowed, reason: "ticket_type"},
		"no type":         {raw: get(""), errcode: codeNotAllowed, reason: "ticket_type"},
		"two types":       {raw: get("&type=jsapi&type=sdk"), errcode: codeNotAllowed, reason: "ticket_type"},
		"nobody":          {raw: request("GET " + path + "?type=jsapi"), errcode: codeNoToken, reason: "no_token_given"},
		"without the path": {raw: request("GET " + path + "?type=jsapi&access_token=" + bought("plain", plainKey, now)),
			errcode: codeNotAllowed, reason: "path"},
	})
	policy := frontPolicy()
	policy.ByName(account("shop", "shop-api")).Account.Tickets[v1alpha1.TicketJSAPI] = Ticket{token.NewValue(ticket), now.Add(time.Minute)}
	if got := newFront(t, policy).send(t, get("&type=jsapi")); !strings.Contains(got.body, `"expires_in":1501`) {
		t.Errorf("near its end: %s", got.body)
	}
}

// The zero policy, which is there before the caches are full, allows nothing, and says that this passes by itself: SDKs would throw a good
// token away.
func TestEmptyPolicy(t *testing.T) {
	f := newFront(t, &Policy{})
	for _, line := range [...]string{
		"GET /cgi-bin/token?appid=" + appID + "&secret=" + theKey,
		"GET /wxa/x?access_token=" + bought("shop-api", theKey, now),
		"GET /sns/userinfo?access_token=u&openid=o",
		"GET /sns/jscode2session?js_code=c&appid=" + appID + "&secret=" + theKey,
		"GET /cgi-bin/ticket/getticket?type=jsapi",
	} {
		if got := f.send(t, request(line, bearerHeader(aJWT))); got.errcode != codeBusy || got.call.Reason != "starting" ||
			got.call.Outcome != OutcomeUnavailable || got.relayed != nil {
			t.Errorf("%.30s: %s", line, got.raw)
		}
	}
	// One that follows from no object is known.
	f = newFront(t, NewPolicy(nil))
	if got := f.send(t, request("GET /wxa/x?access_token="+bought("shop-api", theKey, now))); got.errcode != codeTokenInvalid {
		t.Errorf("without any client: %s", got.raw)
	}
}

// failingRelay panics with what it must not show.
type failingRelay struct{ with any }

func (f failingRelay) relay(http.ResponseWriter, *http.Request, forward) { panic(f.with) }

func TestPanicShowsNothing(t *testing.T) {
	for _, with := range []any{errors.New(realToken), http.ErrAbortHandler} {
		var log strings.Builder
		f := newFront(t, frontPolicy(), func(o *Options) { o.Relay = failingRelay{with}; o.Log = textLogger(&log) })
		func() {
			defer func() {
				if got := recover(); got != http.ErrAbortHandler { //nolint:errorlint // as net/http compares it
					t.Errorf("panics with %v", got)
				}
			}()
			r := httptest.NewRequest(http.MethodGet, "/wxa/getwxacode?access_token="+bought("shop-api", theKey, now), nil)
			f.ServeHTTP(httptest.NewRecorder(), r)
		}()
		if strings.Contains(log.String(), realToken) {
			t.Errorf("logged %s", log.String())
		}
		odd := with != any(http.ErrAbortHandler)
		if odd != strings.Contains(log.String(), "failingRelay.relay") || odd != (f.calls[0].Reason == "internal_error") {
			t.Errorf("logged %q, recorded %+v", log.String(), f.calls)
		}
	}
}

// goneReviewer finds that the caller is gone.
type goneReviewer struct{}

func (goneReviewer) Review(ctx context.Context, _ string, _ netip.Addr, _ func(types.NamespacedName) bool) (types.NamespacedName, error) {
	return types.NamespacedName{}, ctx.Err()
}

func TestCallerIsGone(t *testing.T) {
	f := newFront(t, frontPolicy(), func(o *Options) { o.Reviewer = goneReviewer{} })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/wxa/getwxacode", nil)
	r.Header.Set("Authorization", "Bearer "+aJWT)
	f.ServeHTTP(httptest.NewRecorder(), r)
	if got := f.calls[0]; got.Outcome != OutcomeGone || got.Status != 499 || got.Errcode != 0 {
		t.Errorf("recorded %+v", got)
	}
}

// Whatever the request target is, nothing is passed on that the policy does not allow, and no secret is shown.
func FuzzServeHTTP(f *testing.F) {
	good := bought("shop-api", theKey, now)
	for _, target := range []string{
		"/wxa/getwxacode?access_token=" + good, "/cgi-bin/user/info?a=%2F&access_token=" + good, "/cgi-bin//token?appid=" + appID + "&secret=" + theKey,
		"/sns/jscode2session?js_code=c&appid=" + appID + "&secret=" + theKey, "/sns/userinfo?access_token=u", "/../cgi-bin/user/x?access_token=" + good,
		"/sns/oauth2/refresh_token?refresh_token=r&appid=" + appID, "/cgi-bin/ticket/getticket?type=jsapi&access_token=" + good,
	} {
		f.Add(target, false)
		f.Add(target, true)
	}
	policy := frontPolicy()
	client := policy.ByName(account("shop", "shop-api"))
	f.Fuzz(func(t *testing.T, target string, withAccount bool) {
		got := &front{}
		g := New(Options{
			Source: fixedSource{policy}, Relay: got, Now: func() time.Time { return now },
			Reviewer: fakeReviews{aJWT: account("shop", "api")},
		})
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RequestURI = target
		if withAccount {
			r.Header.Set("Authorization", "Bearer "+aJWT)
		}
		w := httptest.NewRecorder()
		g.ServeHTTP(w, r)
		for _, secret := range []string{appSecret, realToken, theKey} {
			if strings.Contains(w.Body.String(), secret) {
				t.Errorf("%q: answered %s", target, w.Body)
			}
		}
		for _, sent := range got.relayed {
			values, err := url.ParseQuery(sent.query)
			if err != nil {
				t.Fatalf("%q: sent %q: %v", target, sent.query, err)
			}
			switch kind := KindOf(sent.path); {
			case kind == KindRelay && client.allows(sent.path) && sent.client == "shop-api" && values.Get("access_token") == realToken:
			case kind == KindLogin && sent.once && values.Get("appid") == appID && (values.Get("secret") == appSecret || values.Get("secret") == ""):
			case kind == KindUser && !strings.Contains(sent.query, realToken) && !strings.Contains(sent.query, appSecret):
			default:
				t.Errorf("%q: sent %q with %q", target, sent.path, sent.query)
			}
		}
	})
}

// textLogger returns a logger that appends to a text.
func textLogger(to *strings.Builder) logr.Logger {
	return funcr.New(func(_, args string) { to.WriteString(args + "\n") }, funcr.Options{Verbosity: 10})
}
