// SPDX-License-Identifier: Apache-2.0

package silence

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

const (
	gatewayNamespace = "wechat-token-operator-system"
	gatewayApp       = "wx0123456789abcdef"
	gatewayPath      = "/cgi-bin/get_api_domain_ip"
	// macText is the length of the end of a token of the gateway that holds its MAC. What is before it are names, which logs may have.
	macText = 40
)

// TestGatewayIsSilent runs the gateway beside the operator, with calls that succeed, that are refused, and that fail in every way of WeChat.
// Neither AppSecret nor key nor a token of WeChat's, of the gateway's or of a ServiceAccount is anywhere but in its Secret.
func TestGatewayIsSilent(t *testing.T) {
	server, err := wechattest.NewServer(wechattest.Options{})
	must(t, err)
	t.Cleanup(server.Close)
	server.SetApp(wechattest.App{ID: gatewayApp, Secret: appSecret})
	s := &stage{Client: newClient(t), namespace: newNamespace(t), wechat: server}
	s.client(t)
	operator := s.operator(t, "--gateway-url=https://gateway.example")
	address := freeAddress(t)
	gateway := start(t, build(t, "gateway"), s.gatewayAccount(t), server.URL(), nil, "--bind-address", address)
	eventually(t, "the gateway is ready", func() bool { return strings.HasPrefix(fetch(t.Context(), gateway.healthy+"/readyz"), "200") })
	c := &caller{T: t, stage: s, host: "http://" + address, bearer: s.bearer(t)}
	eventually(t, "the gateway takes the key", func() bool { c.key = s.key(t); c.token = c.buy(); return c.token != "" })
	c.succeed()
	c.beRefused()
	c.fail()
	s.rotateKey(t, c.key)
	server.Close()
	c.call(http.MethodGet, gatewayPath+"?access_token="+c.token, "", "")

	needles := []string{appSecret, c.key, s.key(t), c.token[len(c.token)-macText:], c.bearer[strings.LastIndex(c.bearer, ".")+1:]}
	for _, issued := range server.Tokens("") {
		needles = append(needles, issued.Token)
	}
	x := newIndex(needles...)
	for name, p := range map[string]*process{"operator": operator, "gateway": gateway} {
		places := p.places(t, s.namespace)
		for place, text := range places {
			if forms, at := x.find(text); len(forms) > 0 {
				t.Errorf("%s, %s holds a secret (%s): …%s…", name, place, forms,
					strings.ToValidUTF8(text[max(0, at-600):min(len(text), at+60)], "?"))
			}
		}
		if name == "gateway" {
			checkTold(t, places)
		}
	}
}

// checkTold checks that the calls reached what was searched.
func checkTold(t *testing.T, places map[string]string) {
	t.Helper()
	for _, outcome := range []string{"answered", "relayed", "denied", "unavailable"} {
		if !strings.Contains(places["stdout"], `"outcome":"`+outcome+`"`) {
			t.Errorf("no line of the audit log has the outcome %s", outcome)
		}
	}
	for _, reason := range []string{"key", "token", "bearer", "target", "echo", "path", "method"} {
		if !strings.Contains(places["stdout"], `"reason":"`+reason+`"`) {
			t.Errorf("no line of the audit log has the reason %s", reason)
		}
	}
	for place, said := range map[string]string{"stderr": "the gateway starts", "dump": "goroutine ", "metrics": "wechat_gateway_calls_total"} {
		if !strings.Contains(places[place], said) {
			t.Errorf("%s does not say %q", place, said)
		}
	}
}

// client makes a token and a client that may log in, for the operator.
func (s *stage) client(t *testing.T) {
	t.Helper()
	credentials := s.secret("credentials", appSecret)
	credentials.Labels = map[string]string{v1alpha1.LabelCredentials: "true"}
	token := newToken(s.namespace, "shop", gatewayApp, v1alpha1.ModeStable)
	for _, o := range []client.Object{
		credentials, token,
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "web"}},
		&v1alpha1.WeChatAppClient{
			ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "web"},
			Spec: v1alpha1.WeChatAppClientSpec{
				TokenRef:        v1alpha1.TokenReference{Name: "shop"},
				ServiceAccounts: []v1alpha1.ServiceAccountReference{{Namespace: s.namespace, Name: "web"}},
				Key:             &v1alpha1.ClientKeySpec{SecretName: "web-wechat"},
				Paths:           []v1alpha1.ClientPath{gatewayPath}, Login: true,
			},
		},
	} {
		must(t, s.Create(t.Context(), o))
	}
}

// key returns the client's key, or nothing before there is one.
func (s *stage) key(t *testing.T) string {
	t.Helper()
	secret := &corev1.Secret{}
	err := s.Get(t.Context(), client.ObjectKey{Namespace: s.namespace, Name: "web-wechat"}, secret)
	must(t, client.IgnoreNotFound(err))
	return string(secret.Data[v1alpha1.AppSecretKey])
}

// rotateKey replaces the key, so that the Secret has the one before, too.
func (s *stage) rotateKey(t *testing.T, before string) {
	t.Helper()
	o := &v1alpha1.WeChatAppClient{}
	must(t, s.Get(t.Context(), client.ObjectKey{Namespace: s.namespace, Name: "web"}, o))
	if ready := apimeta.FindStatusCondition(o.Status.Conditions, v1alpha1.ConditionReady); ready == nil {
		t.Error("the client has no condition")
	}
	base := o.DeepCopy()
	o.Annotations = map[string]string{v1alpha1.AnnotationRotateKeyRequestedAt: "1"}
	must(t, s.Patch(t.Context(), o, client.MergeFrom(base)))
	eventually(t, "the key is another one", func() bool { return s.key(t) != before })
}

// gatewayAccount installs the rights of config/gateway and returns the configuration of its ServiceAccount.
func (s *stage) gatewayAccount(t *testing.T) string {
	t.Helper()
	must(t, s.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: gatewayNamespace}}))
	for _, file := range []string{"service_account", "role", "review_role", "role_binding"} {
		raw, err := os.ReadFile("../../config/gateway/" + file + ".yaml")
		must(t, err)
		for document := range strings.SplitSeq(string(raw), "\n---\n") {
			o := &unstructured.Unstructured{}
			must(t, yaml.Unmarshal([]byte(document), &o.Object))
			must(t, s.Create(t.Context(), o))
		}
	}
	config := rest.AnonymousClientConfig(env.Config)
	config.BearerToken = s.tokenOf(t, gatewayNamespace, "wechat-token-operator-gateway")
	raw, err := testenv.KubeConfigOf(config)
	must(t, err)
	return string(raw)
}

// bearer returns a token with which the client's ServiceAccount may call.
func (s *stage) bearer(t *testing.T) string {
	t.Helper()
	return s.tokenOf(t, s.namespace, "web", "wechat-gateway")
}

func (s *stage) tokenOf(t *testing.T, namespace, name string, audiences ...string) string {
	t.Helper()
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: audiences}}
	of := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	must(t, s.SubResource("token").Create(t.Context(), of, request))
	return request.Status.Token
}

// caller calls the gateway.
type caller struct {
	*testing.T

	stage              *stage
	host               string
	key, token, bearer string
	// calls is how many calls were made.
	calls int
}

// call returns the body of the answer, or nothing if the connection broke.
func (c *caller) call(method, target, authorization, body string) string {
	c.Helper()
	req, err := http.NewRequestWithContext(c.Context(), method, c.host+target, strings.NewReader(body))
	must(c.T, err)
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	// What a caller says about itself may hold anything.
	req.Header.Set("User-Agent", c.key)
	req.Header.Set("X-Forwarded-For", c.token)
	// Each call is that of another peer, because of one peer not all denials are written.
	c.calls++
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, byte(c.calls>>8), byte(c.calls))}}
	peer := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}}
	res, err := peer.Do(req)
	if err != nil {
		return ""
	}
	defer res.Body.Close() //nolint:errcheck // it is read
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return ""
	}
	return string(text)
}

// buy returns a token of the gateway, or nothing.
func (c *caller) buy() string {
	var answer struct {
		Token string `json:"access_token"`
	}
	text := c.call(http.MethodGet, "/cgi-bin/token?grant_type=client_credential&appid="+gatewayApp+"&secret="+c.key, "", "")
	if json.Unmarshal([]byte(text), &answer) != nil {
		return ""
	}
	return answer.Token
}

// login returns the target of a login with a secret.
func (c *caller) login(secret string) string {
	code := c.stage.wechat.NewCode(gatewayApp, wechattest.CodeMiniProgram, "").Code
	return "/sns/jscode2session?" + url.Values{
		"appid": {gatewayApp}, "secret": {secret}, "js_code": {code}, "grant_type": {"authorization_code"},
	}.Encode()
}

func (c *caller) succeed() {
	c.Helper()
	for _, done := range []struct{ holds, answer string }{
		{"ip_list", c.call(http.MethodGet, gatewayPath+"?access_token="+c.token, "", "")},
		{"ip_list", c.call(http.MethodGet, gatewayPath, "Bearer "+c.bearer, "")},
		{"session_key", c.call(http.MethodGet, c.login(c.key), "", "")},
		{"access_token", c.call(http.MethodPost, "/cgi-bin/stable_token", "",
			`{"grant_type":"client_credential","appid":"`+gatewayApp+`","secret":"`+c.key+`"}`)},
	} {
		if !strings.Contains(done.answer, done.holds) {
			c.Errorf("a call that is allowed is answered with %q, without %s", done.answer, done.holds)
		}
	}
}

// beRefused sends secrets where they do not belong.
func (c *caller) beRefused() {
	c.Helper()
	issued := c.stage.wechat.Tokens("")[0].Token
	for _, value := range []string{appSecret, c.key, c.token, c.bearer, issued} {
		for _, target := range []string{
			"/cgi-bin/token?grant_type=client_credential&appid=" + gatewayApp + "&secret=" + value + "x",
			"/cgi-bin/token?grant_type=client_credential&secret=" + c.key + "&appid=" + value,
			gatewayPath + "?access_token=" + value + "x",
			gatewayPath + "?access_token=" + c.token + "&Access_Token=" + value,
			gatewayPath + "?" + value + "=1&access_token=" + c.token + "&type=" + value,
			"/cgi-bin/user/get?access_token=" + value, "/cgi-bin/ticket/getticket?type=" + value + "&access_token=" + c.token,
			c.login(value + "x"),
		} {
			c.call(http.MethodGet, target, "", "")
		}
		c.call(http.MethodGet, gatewayPath, "Bearer "+value+"x", "")
		c.call(http.MethodGet, gatewayPath, "Basic "+value, "")
		c.call(http.MethodPost, "/cgi-bin/stable_token", "", value)
		c.call(http.MethodPut, gatewayPath+"?access_token="+value, "", value)
	}
}

// fail makes WeChat fail in each way, with its token in the answer where it can be.
func (c *caller) fail() {
	c.Helper()
	for _, issued := range c.stage.wechat.Tokens("") {
		echo := `{"errcode":40001,"errmsg":"token ` + issued.Token + ` secret ` + appSecret + `"}`
		for _, fault := range []wechattest.Fault{
			{Body: echo}, {Body: "<html>" + echo, ContentType: "text/html", Status: http.StatusBadGateway}, {Status: http.StatusFound, Body: echo},
			{Garbage: true}, {Hang: true}, {Cut: wechattest.CutBefore}, {Cut: wechattest.CutAfter}, {Cut: wechattest.CutBody},
		} {
			fault.Endpoint, fault.Times = wechattest.EndpointProbe, 2
			c.stage.wechat.Inject(fault)
			c.call(http.MethodGet, gatewayPath+"?access_token="+c.token, "", "")
			c.stage.wechat.ClearFaults()
		}
		login := wechattest.Fault{Endpoint: wechattest.EndpointLogin, Times: 1, Body: echo}
		c.stage.wechat.Inject(login)
		c.call(http.MethodGet, c.login(c.key), "", "")
	}
}
