// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

const (
	// relayLife is the life of tokens in the gateway's story. A token that is replaced by force is good for three fifths of it. That is
	// longer than the 32 s between the two calls of a revoke, so that it is the second call that ends the token.
	relayLife = 60 * time.Second
	// revokeWithin is the longest time from the request to the end of a leaked token.
	revokeWithin = 45 * time.Second
	// repairWithin is how long a call waits for another token, and the most that its repair may take.
	repairWithin = 3 * time.Second
	// callPath is a path that the program calls, and that the sample does not allow.
	callPath = "/cgi-bin/getcallbackip"
)

// relays is what the gateway's story runs.
type relays struct {
	gateway, program string
}

func (r relays) on() bool { return r.gateway != "" }

// relay is what the gateway's story adds to the stage.
type relay struct {
	// address is where the gateway serves; empty without a gateway.
	address string
	gateway *child
	// program is the one that is called now, and started how many there were.
	program *program
	started int
	calls   *caller
	// client is the WeChatAppClient of the sample.
	client *v1alpha1.WeChatAppClient
}

// close ends what runs. The gateway is not asked to end, because it would then serve for another ten seconds.
func (r *relay) close() error {
	var errs []error
	if r.calls != nil {
		r.calls.stop()
	}
	if r.program != nil {
		errs = append(errs, r.program.kill())
	}
	if r.gateway != nil {
		errs = append(errs, r.gateway.kill())
	}
	return errors.Join(errs...)
}

// logs are the logs of the gateway and of the programs.
func (r *relay) logs(dir string) []string {
	if r.gateway == nil {
		return nil
	}
	out := []string{r.gateway.log}
	for n := range r.started {
		out = append(out, filepath.Join(dir, fmt.Sprintf("program-%d.log", n+1)))
	}
	return out
}

// relayed is the gateway's story, step by step.
func (s *stage) relayed() []chapter {
	return []chapter{
		s.prepareRelay, s.supply, s.awaitKey, s.showProgram, s.useSDK, s.allowPath, s.startCalls,
		s.during("the key was rotated and the program restarted", s.rotateKey),
		s.during("the operator rotated the token", s.rotate),
		s.during("a leaked token was revoked", s.revoke),
		s.during("another program killed the token", s.loseToken),
		s.summarizeRelay,
	}
}

// prepareRelay starts the control plane, the operator and the gateway, each with the rights of its role.
func (s *stage) prepareRelay(ctx context.Context) (err error) {
	s.life = relayLife
	s.say("A program with an unmodified SDK calls WeChat through the gateway. It has a key, and neither the AppSecret nor WeChat's token.")
	s.say("Tokens live for %s here, so that the story is short; WeChat's live for two hours.", s.life)
	s.say("")
	if s.relay.address, err = testenv.FreeAddress(); err != nil {
		return err
	}
	if err := s.setUp(ctx); err != nil {
		return err
	}
	config, err := s.env.Gateway(ctx, "")
	if err != nil {
		return err
	}
	kubeconfig, err := testenv.KubeConfigOf(config)
	if err != nil {
		return err
	}
	path := filepath.Join(s.dir, "gateway.kubeconfig")
	if err := os.WriteFile(path, kubeconfig, 0o600); err != nil {
		return fmt.Errorf("writing the gateway's kubeconfig: %w", err)
	}
	probes, err := testenv.FreeAddress()
	if err != nil {
		return err
	}
	s.relay.gateway, err = s.startChild("gateway", exec.Command(s.relays.gateway, //nolint:gosec,noctx // the caller's binary; close ends it
		"--kubeconfig", path, "--wechat-endpoints", s.wechat.URL(), "--wechat-ca-file", filepath.Join(s.dir, "wechat-ca.pem"),
		"--namespaces", namespace, "--bind-address", s.relay.address, "--audit-log", s.auditLog(),
		"--health-probe-bind-address", probes, "--metrics-bind-address", "0"))
	if err != nil {
		return err
	}
	if err := s.awaitReady(ctx, "the gateway", probes); err != nil {
		return errors.Join(err, logTail(s.relay.gateway.log))
	}
	s.step("the gateway is ready at http://%s", s.relay.address)
	return nil
}

func (s *stage) auditLog() string { return filepath.Join(s.dir, "audit.log") }

// awaitKey waits until the operator has made the client's key.
func (s *stage) awaitKey(ctx context.Context) error {
	if s.relay.client == nil {
		return fmt.Errorf("%s holds no %s", s.sample, v1alpha1.ClientKind)
	}
	name := s.relay.client.Name
	if _, err := s.kubectl(ctx, "wait", "--for=condition=Ready", "--timeout=10s", "wechatappclient/"+name); err != nil {
		return err
	}
	if err := s.reloadClient(ctx); err != nil {
		return err
	}
	if s.relay.client.Spec.Key == nil || s.relay.client.Status.Key == nil {
		return fmt.Errorf("%s %q has no key", v1alpha1.ClientKind, name)
	}
	s.step("%s %q is ready: the operator made its key and the Secret %q", v1alpha1.ClientKind, name, s.relay.client.Spec.Key.SecretName)
	return s.awaitGateway(ctx)
}

// awaitGateway waits until the gateway knows the key of the Secret. It gathers changes for up to a second.
func (s *stage) awaitGateway(ctx context.Context) error {
	secret, err := s.keySecret(ctx)
	if err != nil {
		return err
	}
	begin := time.Now()
	err = s.eventually(ctx, 5*time.Second, "the gateway knows the key", func() (bool, string) {
		errcode, err := s.buy(ctx, "http://"+s.relay.address, string(secret.Data[v1alpha1.AppSecretKey]))
		return errcode == 0 && err == nil, fmt.Sprintf("errcode %d, %v", errcode, err)
	})
	if err != nil {
		return err
	}
	s.step("the gateway knew the key %s later", since(begin))
	return nil
}

// showProgram starts the program and shows all that it has.
func (s *stage) showProgram(ctx context.Context) (err error) {
	if s.relay.program, err = s.startProgram(ctx); err != nil {
		return err
	}
	s.step("the program runs: the SDK silenceper/wechat of examples/gateway, with the key Secret mounted. This is all that it has:")
	places, err := s.relay.program.places()
	if err != nil {
		return err
	}
	for _, name := range sortedKeys(places) {
		switch {
		case strings.HasPrefix(name, "log "):
		case filepath.Base(name) == v1alpha1.AppSecretKey:
			key := token.NewValue(places[name])
			if key.Fingerprint() != s.relay.client.Status.Key.Fingerprint {
				return errors.New("app_secret is not the key that the status names")
			}
			s.say("          %s: the client's key, with the fingerprint %s", name, key.Fingerprint())
		default:
			s.say("          %s: %s", name, places[name])
		}
	}
	if err := s.checkSilence(ctx, places); err != nil {
		return err
	}
	s.step("neither the AppSecret nor WeChat's token is among it")
	errcode, err := s.buy(ctx, s.wechat.URL(), places["file "+filepath.Join("wechat", v1alpha1.AppSecretKey)])
	if err != nil {
		return err
	}
	if errcode == 0 {
		return errors.New("WeChat issues tokens for the client's key")
	}
	s.step("WeChat itself does not know the key: it answers errcode %d", errcode)
	return nil
}

// buy asks WeChat or the gateway for a token. It returns the errcode, which is 0 if there was a token.
func (s *stage) buy(ctx context.Context, base, appSecret string) (errcode int, err error) {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.wechat.CACertPEM())
	direct := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true,
	}}
	query := url.Values{"grant_type": {"client_credential"}, "appid": {s.token.Spec.AppID}, "secret": {appSecret}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/cgi-bin/token?"+query.Encode(), nil)
	if err != nil {
		return 0, errors.New("the request for a token cannot be built") // the error has the whole URL
	}
	res, err := direct.Do(req)
	if err != nil {
		return 0, fmt.Errorf("%s does not answer", base) // the error has the whole URL
	}
	defer res.Body.Close() //nolint:errcheck // it is read
	answer := struct {
		Token   string `json:"access_token"`
		Errcode int    `json:"errcode"`
	}{}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		return 0, fmt.Errorf("decoding the answer of %s: %w", base, err)
	}
	if answer.Errcode == 0 && answer.Token == "" {
		return 0, fmt.Errorf("%s answers with neither a token nor an errcode", base)
	}
	return answer.Errcode, nil
}

// useSDK logs a user in and draws a code.
func (s *stage) useSDK(ctx context.Context) error {
	code := s.wechat.NewCode(s.token.Spec.AppID, wechattest.CodeMiniProgram, "")
	begin := time.Now()
	user, err := s.relay.program.get(ctx, "/login?code="+url.QueryEscape(code.Code))
	if err != nil {
		return fmt.Errorf("logging a user in: %w", err)
	}
	if user["openid"] != code.OpenID {
		return errors.New("the login told of another user than the one whose code it was")
	}
	s.step("the SDK logged a user in within %s; the gateway put the AppSecret in the place of the key", since(begin))
	begin = time.Now()
	picture, err := s.relay.program.get(ctx, "/image")
	if err != nil {
		return fmt.Errorf("drawing a code: %w", err)
	}
	s.step("it drew the code of a mini program within %s: a picture of %v bytes", since(begin), picture["bytes"])
	return nil
}

// allowPath shows that nothing is allowed that the WeChatAppClient does not name, and allows one more path.
func (s *stage) allowPath(ctx context.Context) error {
	if _, err := s.relay.program.get(ctx, "/call"); err == nil || !strings.Contains(err.Error(), "48001") {
		return errors.Join(fmt.Errorf("%s is not in spec.paths, but was not refused for that", callPath), err)
	}
	s.step("%s was refused with errcode 48001, because spec.paths does not have it", callPath)
	add := fmt.Sprintf(`[{"op":"add","path":"/spec/paths/-","value":%q}]`, callPath)
	allowed := time.Now()
	if _, err := s.kubectl(ctx, "patch", "wechatappclient", s.relay.client.Name, "--type=json", "--patch", add); err != nil {
		return err
	}
	err := s.eventually(ctx, 5*time.Second, "the gateway allows "+callPath, func() (bool, string) {
		_, err := s.relay.program.get(ctx, "/call")
		return err == nil, fmt.Sprint(err)
	})
	if err != nil {
		return err
	}
	s.step("it was allowed by kubectl patch, and worked %s later", since(allowed))
	return nil
}

func (s *stage) startCalls(ctx context.Context) error {
	s.relay.calls = startCaller(ctx, s.relay.program)
	s.step("from now on the program calls WeChat %d times a second", time.Second/callEvery)
	return nil
}

// during tells a chapter, and counts the calls of the program meanwhile and for a moment afterwards.
func (s *stage) during(what string, do chapter) chapter {
	return func(ctx context.Context) error {
		s.relay.calls.begin(what)
		if err := do(ctx); err != nil {
			return err
		}
		return s.awaitCalls(ctx)
	}
}

// awaitCalls waits until the program has answered some more calls.
func (s *stage) awaitCalls(ctx context.Context) error {
	before := s.relay.calls.ended()
	return s.eventually(ctx, 30*time.Second, "the program has answered more calls", func() (bool, string) {
		ended := s.relay.calls.ended()
		return ended >= before+callsAfter, fmt.Sprintf("%d calls", ended-before)
	})
}

// rotateKey asks for another key and restarts the program with it, while the one before goes on calling.
func (s *stage) rotateKey(ctx context.Context) error {
	before, err := s.keySecret(ctx)
	if err != nil {
		return err
	}
	if err := s.request(ctx, "wechatappclient/"+s.relay.client.Name, v1alpha1.AnnotationRotateKeyRequestedAt, "demo"); err != nil {
		return err
	}
	if err := s.untilAnotherKey(ctx, s.relay.client.Status.Key.Fingerprint); err != nil {
		return err
	}
	s.step("the key was rotated, and the Secret has the new one")
	if err := s.awaitGateway(ctx); err != nil {
		return err
	}
	next, err := s.startProgram(ctx)
	if err != nil {
		return err
	}
	old := s.relay.program
	s.relay.program = next
	s.relay.calls.handOver(next)
	if err := old.kill(); err != nil {
		return err
	}
	errcode, err := s.buy(ctx, "http://"+s.relay.address, string(before.Data[v1alpha1.AppSecretKey]))
	if err != nil {
		return err
	}
	until := s.relay.client.Status.Key.PreviousUntilTime
	if errcode != 0 || until == nil {
		return fmt.Errorf("for the key before, the gateway answers errcode %d", errcode)
	}
	s.step("the program was restarted with the new key; the one before goes on buying tokens for %.0f h", time.Until(until.Time).Hours())
	return nil
}

// untilAnotherKey waits until the Secret has a key that the status names, and that has another fingerprint.
func (s *stage) untilAnotherKey(ctx context.Context, before string) error {
	return s.eventually(ctx, 10*time.Second, "the client has another key", func() (bool, string) {
		if err := s.reloadClient(ctx); err != nil {
			return false, err.Error()
		}
		secret, err := s.keySecret(ctx)
		if err != nil {
			return false, err.Error()
		}
		now := s.relay.client.Status.Key
		written := token.NewValue(string(secret.Data[v1alpha1.AppSecretKey])).Fingerprint()
		return now != nil && now.Fingerprint != before && now.Fingerprint == written, "the same key"
	})
}

// revoke ends a token that has leaked.
func (s *stage) revoke(ctx context.Context) error {
	leaked, begin := s.value(ctx), time.Now()
	if !s.wechat.Valid(leaked) {
		return errors.New("the Secret holds no valid token to revoke")
	}
	const value = "demo"
	if err := s.request(ctx, "wechatapptoken/"+s.token.Name, v1alpha1.AnnotationRevokeRequestedAt, value); err != nil {
		return err
	}
	s.step("the token leaked, and a revoke was requested: WeChat has to be asked twice, 32 s apart")
	err := s.eventually(ctx, revokeWithin, "the revoke has been carried out", func() (bool, string) {
		if err := s.reload(ctx); err != nil {
			return false, err.Error()
		}
		handled := s.token.Status.HandledRequests
		return handled != nil && handled.Revoke == value, "it is under way"
	})
	if err != nil {
		return err
	}
	old, err := s.issued(leaked)
	if err != nil {
		return err
	}
	if s.wechat.Valid(leaked) || !old.DiedAt.Before(old.ExpiresAt) {
		return errors.New("the leaked token was not ended")
	}
	s.step("the leaked token was dead after %s, %s before its end", since(begin), old.ExpiresAt.Sub(old.DiedAt).Round(time.Second))
	return nil
}

// loseToken has a rival force two tokens in a row, so that the one in the Secret is dead at once.
func (s *stage) loseToken(ctx context.Context) error {
	before := s.value(ctx)
	killed := time.Now()
	s.wechat.RivalForceRefresh(s.token.Spec.AppID)
	s.wechat.RivalForceRefresh(s.token.Spec.AppID)
	if s.wechat.Valid(before) {
		return errors.New("the rival did not kill the token")
	}
	s.step("another program fetched two tokens by force: WeChat does not accept the one in the Secret any more")
	if err := s.untilAnother(ctx, before, 2*repairWithin); err != nil {
		return err
	}
	took := since(killed)
	fingerprint := token.NewValue(before).Fingerprint()
	err := s.eventually(ctx, 5*time.Second, "the gateway has told of the token that WeChat refused", func() (bool, string) {
		if err := s.reloadClient(ctx); err != nil {
			return false, err.Error()
		}
		hint := s.relay.client.Status.Hint
		return hint != nil && hint.RefusedFingerprint == fingerprint, "status.hint does not name it"
	})
	if err != nil {
		return err
	}
	if s.refused(killed) == 0 {
		return errors.New("WeChat refused no call")
	}
	s.step("WeChat refused a call; the gateway told the operator, and the next token was in the Secret after %s", took)
	return nil
}

// refused counts the calls of the program since then that WeChat refused because of their token.
func (s *stage) refused(since time.Time) (n int) {
	for _, endpoint := range []wechattest.Endpoint{wechattest.EndpointCallbackIP, wechattest.EndpointCode} {
		for _, c := range s.wechat.Calls(wechattest.Filter{Endpoint: endpoint, Since: since}) {
			if c.Errcode == 40001 || c.Errcode == 42001 {
				n++
			}
		}
	}
	return n
}

// summarizeRelay looks once more at everything that the program has had, and prints the table.
func (s *stage) summarizeRelay(ctx context.Context) error {
	s.relay.calls.stop()
	s.say("")
	if err := s.relay.calls.table(s.out); err != nil {
		return fmt.Errorf("writing the table: %w", err)
	}
	calls, err := s.relay.calls.judge()
	if err != nil {
		return err
	}
	places, err := s.relay.program.places()
	if err != nil {
		return err
	}
	for _, log := range append(s.relay.logs(s.dir), s.processAt, s.auditLog()) {
		if err := addLog(places, log); err != nil {
			return err
		}
	}
	if err := s.checkSilence(ctx, places); err != nil {
		return err
	}
	passed := s.wechat.Count(wechattest.Filter{Endpoint: wechattest.EndpointCallbackIP}) +
		s.wechat.Count(wechattest.Filter{Endpoint: wechattest.EndpointCode})
	s.say("")
	s.say("The program made %d calls. Calls that failed: 0.", calls)
	s.say("WeChat got %d calls from the gateway. Calls that it refused, and that the gateway sent again with the next token: %d.",
		passed, s.refused(s.start))
	s.say("WeChat had %d tokens. The program's environment and files, and all logs, have none of them, nor the AppSecret.",
		len(s.wechat.Tokens(s.token.Spec.AppID)))
	return nil
}

// request sets an annotation that asks for something.
func (s *stage) request(ctx context.Context, object, annotation, value string) error {
	_, err := s.kubectl(ctx, "annotate", object, annotation+"="+value)
	return err
}

func (s *stage) reloadClient(ctx context.Context) error {
	if err := s.client.Get(ctx, client.ObjectKeyFromObject(s.relay.client), s.relay.client); err != nil {
		return fmt.Errorf("reading the %s: %w", v1alpha1.ClientKind, err)
	}
	return nil
}

// keySecret returns the Secret that the program mounts.
func (s *stage) keySecret(ctx context.Context) (*corev1.Secret, error) {
	secret := &corev1.Secret{}
	key := client.ObjectKey{Namespace: namespace, Name: s.relay.client.Spec.Key.SecretName}
	if err := s.client.Get(ctx, key, secret); err != nil {
		return nil, fmt.Errorf("reading the key Secret: %w", err)
	}
	return secret, nil
}

func sortedKeys(m map[string]string) []string {
	out := make([]string, 0, len(m))
	for key := range m {
		out = append(out, key)
	}
	slices.Sort(out)
	return out
}
