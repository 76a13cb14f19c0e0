// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

var caller = &http.Client{Timeout: 30 * time.Second}

// soakClient is a program that calls through the gateways as its ServiceAccount.
type soakClient struct{ name, bearer string }

// slots are the kinds of resources: one is suspended, one has wrong credentials at first, two Stable and two Legacy ones share an account
// across namespaces, and two have a WeChatAppClient. Of the other twelve, which faults about one account hit, three are Legacy.
const (
	slots  = 20
	spared = 8
)

// add makes one more resource.
func (s *soak) add(slot int) {
	i := len(s.known())
	account, mode := i, v1alpha1.ModeStable
	if slot == 3 || slot == 5 {
		account-- // its neighbour's
	}
	if slot == 4 || slot == 5 || slot >= spared && slot%4 == 0 {
		mode = v1alpha1.ModeLegacy
	}
	// Each second account is an Official Account, which has tickets; the others are Mini Programs. A ticket changes with the first call that is
	// made a minute after the last change, so that the members of an account see several changes in a short time.
	tickets := v1alpha1.TicketTypes()
	app := wechattest.App{ID: s.appID(account), Secret: appSecret(account), Tickets: wechattest.TicketRules{Age: time.Minute}}
	if mode == v1alpha1.ModeLegacy {
		app.Life = soakLegacyLife
	}
	kinds := tickets[:account/2%(len(tickets)+1)]
	if account%2 == 1 {
		app.Tickets.Without, kinds = tickets, nil
	}
	s.wechat.SetApp(app)
	ns, name := s.namespaces[i%len(s.namespaces)], fmt.Sprintf("t%04d", i)
	if slot == 1 {
		wrong := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name + "-credentials", Labels: map[string]string{v1alpha1.LabelCredentials: "true"}},
			StringData: map[string]string{"appSecret": appSecret(account + 1)},
		}
		s.must(s.Create(s.ctx, wrong))
	}
	ref := s.addToken(ns, account, name, mode, withTickets(kinds...), func(t *v1alpha1.WeChatAppToken) {
		t.Spec.CheckInterval.Duration = 2 * time.Minute
		t.Spec.Suspend = slot == 0
	})
	if s.slots[ref] = slot; !s.begun.IsZero() {
		s.hitAt[ref] = time.Now() // it has nothing yet that a fault could spoil
	}
	switch slot {
	case 0:
		ref.until = ref.since // it has nothing to be judged
	case 1:
		s.wrong = append(s.wrong, ref)
	case 6, 7:
		s.addClient(ref)
	}
}

// addClient lets a ServiceAccount call as a resource's app.
func (s *soak) addClient(ref *targetRef) {
	meta := metav1.ObjectMeta{Namespace: ref.name.Namespace, Name: ref.resource}
	account := &corev1.ServiceAccount{ObjectMeta: meta}
	s.must(s.Create(s.ctx, account))
	s.must(s.Create(s.ctx, &v1alpha1.WeChatAppClient{ObjectMeta: meta, Spec: v1alpha1.WeChatAppClientSpec{
		TokenRef:        v1alpha1.TokenReference{Name: ref.resource},
		ServiceAccounts: []v1alpha1.ServiceAccountReference{{Namespace: meta.Namespace, Name: meta.Name}},
		Paths:           []v1alpha1.ClientPath{"/cgi-bin/getcallbackip"},
	}}))
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		Audiences: []string{"wechat-gateway"}, ExpirationSeconds: new(int64(24 * 60 * 60)),
	}}
	s.must(s.SubResource("token").Create(s.ctx, account, request))
	s.clients = append(s.clients, soakClient{name: ref.name.String(), bearer: request.Status.Token})
}

// callThroughGateways makes two calls in a second, by each client in turn and through each gateway in turn.
func (s *soak) callThroughGateways() {
	for i := 0; s.sleep(500 * time.Millisecond); i++ {
		go func() {
			s.state.Lock()
			quiet, from := s.quiet, time.Now()
			calm := s.fault == ""
			s.state.Unlock()
			err := s.call(s.clients[i/2%len(s.clients)], i%2)
			s.state.Lock()
			defer s.state.Unlock()
			if s.ctx.Err() != nil {
				return
			}
			s.minute.GatewayCalls++
			if err == nil {
				return
			}
			s.minute.Failed++
			if calm && s.quiet.Equal(quiet) && from.Sub(quiet) > explainedFor {
				s.minute.Unexplained++
				s.Logf("%s: a call through the gateway failed while no fault was under way: %v", s.clients[i/2%len(s.clients)].name, err)
			}
		}()
	}
}

func (s *soak) call(c soakClient, door int) error {
	req, err := http.NewRequestWithContext(s.ctx, http.MethodGet, "http://"+s.doors[door]+"/cgi-bin/getcallbackip", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+c.bearer)
	res, err := caller.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	var answer struct {
		List []string `json:"ip_list"` //nolint:tagliatelle // WeChat's
	}
	if err := errors.Join(err, json.Unmarshal(raw, &answer)); err != nil || answer.List == nil {
		return fmt.Errorf("%s: %s", res.Status, raw)
	}
	return nil
}

// attack makes one fault after the other, each kind once before any comes again, until the time is over.
func (s *soak) attack() {
	kinds, order, planted := s.faults(), []int(nil), os.Getenv(soakPlant) == ""
	for s.sleep(s.between(31*time.Second, 60*time.Second)) {
		if len(s.wrong) > 0 && time.Since(s.begun) > s.length/4 {
			for _, ref := range s.wrong {
				s.must(s.merge(credentialsOf(ref), object{"data": object{"appSecret": encoded(appSecret(ref.account))}}))
			}
			s.wrong = nil
		}
		if !planted && time.Since(s.begun) > soakLife {
			planted = true
			s.plant()
		}
		if len(order) == 0 {
			order = s.rng.Perm(len(kinds))
		}
		f := kinds[order[0]]
		order = order[1:]
		if f.endsLeader {
			if !s.ended.IsZero() && time.Since(s.ended) < s.length/6 {
				continue // each leader is there for long enough to show whether it grows
			}
			s.ended = time.Now()
		}
		s.begin(f.name)
		f.run()
		s.begin("")
	}
}

// begin notes that a fault begins or, without a name, that it is over.
func (s *soak) begin(fault string) {
	s.state.Lock()
	defer s.state.Unlock()
	s.fault, s.quiet = fault, time.Now()
	if fault != "" {
		s.minute.Faults = append(s.minute.Faults, fault)
	}
}

type soakFault struct {
	name string
	// endsLeader: the leader ends, or gives up its lease.
	endsLeader bool
	run        func()
}

func (s *soak) faults() []soakFault {
	away := []wechattest.Fault{
		{Cut: wechattest.CutBefore}, {Hang: true}, {Status: 502}, {Status: 200, Body: "<html>hello</html>", ContentType: "text/html"},
		{Garbage: true}, {Errcode: -1}, {Errcode: 45011},
	}
	return []soakFault{
		{"leader killed", true, func() {
			if leader := s.leader(); leader == nil {
				s.Error("nobody leads, so no leader was killed")
			} else {
				leader.kill()
			}
			s.sleep(20 * time.Second) // another one leads
		}},
		{"API server cut off", true, func() {
			to := []line{refusing, stalled}[s.rng.IntN(2)]
			s.outage(func() {
				for _, r := range slices.Concat(s.replicas, s.gateways) {
					r.api.set(to)
				}
				s.sleep(s.between(5*time.Second, 60*time.Second))
				for _, r := range slices.Concat(s.replicas, s.gateways) {
					r.api.set(connected)
				}
			})
		}},
		{"a host of WeChat's down", false, func() {
			s.host.close()
			s.sleep(s.between(20*time.Second, 60*time.Second))
			s.host.open()
		}},
		{"WeChat fails", false, func() { s.spoil(away[s.rng.IntN(len(away))]) }},
		{"WeChat slow", false, func() { s.spoil(wechattest.Fault{Delay: s.between(time.Second, 4*time.Second)}) }},
		{"rival's refresh", false, func() {
			for _, ref := range s.pick(3, wechattest.Stable) {
				s.wechat.RivalForceRefresh(ref.appID)
			}
		}},
		{"target edited or deleted", false, func() {
			for _, ref := range append(s.pick(3, wechattest.Stable), s.pick(1, wechattest.Legacy)...) {
				s.vandalise(ref)
				if len(ref.tickets) > 0 {
					s.vandaliseTicket(ref)
				}
			}
		}},
		{"requests", false, func() {
			for _, mode := range []wechattest.Mode{wechattest.Stable, wechattest.Legacy} {
				refs := s.pick(3, mode)
				for i, key := range []string{
					v1alpha1.AnnotationCheckRequestedAt, v1alpha1.AnnotationRefreshRequestedAt, v1alpha1.AnnotationRevokeRequestedAt,
				} {
					if i >= len(refs) {
						break
					}
					if i > 0 {
						s.asked(refs[i].name)
					}
					s.request(refs[i], key)
				}
			}
		}},
		{"resources deleted and created", false, func() {
			for _, ref := range append(s.pick(3, wechattest.Stable), s.pick(1, wechattest.Legacy)...) {
				s.end(ref)
				s.add(s.slots[ref])
			}
		}},
		{"gateway killed", false, func() { s.gateways[1].kill() }}, // the other one lives as long as the soak
		{"label flood", false, s.flood},
	}
}

// spoil lets WeChat answer in some way for a while.
func (s *soak) spoil(how wechattest.Fault) {
	s.outage(func() {
		s.wechat.Inject(how)
		s.sleep(s.between(5*time.Second, 28*time.Second))
		s.wechat.ClearFaults()
	})
}

// pick draws resources with an account of their own that no fault has hit lately.
func (s *soak) pick(n int, mode wechattest.Mode) (refs []*targetRef) {
	all := s.known()
	for _, i := range s.rng.Perm(len(all)) {
		ref := all[i]
		if len(refs) == n {
			break
		}
		v, ok := s.held(ref)
		if ok && !v.gone && ref.until.IsZero() && ref.mode == mode && s.slots[ref] >= spared && time.Since(s.hitAt[ref]) > hitAgainAfter {
			s.hitAt[ref] = time.Now()
			refs = append(refs, ref)
		}
	}
	return refs
}

// flood labels many Secrets of a namespace as credentials, so that the operator's caches take them in, and deletes them.
func (s *soak) flood() {
	ns := s.namespaces[s.rng.IntN(len(s.namespaces))]
	labels := map[string]string{v1alpha1.LabelCredentials: "true", "flood": "true"}
	for i := range 200 {
		s.must(s.Create(s.ctx, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: fmt.Sprintf("flood-%03d", i), Labels: labels}, StringData: map[string]string{"appSecret": "none"},
		}))
	}
	s.sleep(s.between(5*time.Second, 30*time.Second))
	s.must(s.DeleteAllOf(s.ctx, &corev1.Secret{}, client.InNamespace(ns), client.MatchingLabels{"flood": "true"}))
}

// plant writes tokens that have expired and tells nobody: the samples must find them.
func (s *soak) plant() {
	for _, ref := range s.pick(5, wechattest.Stable) {
		s.must(s.merge(ref.name, object{"data": object{tokenKey: encoded(s.wechat.Tokens(ref.appID)[0].Token)}}))
	}
}
