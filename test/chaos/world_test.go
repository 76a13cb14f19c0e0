// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// world is one scenario's namespaces, stand-in and operators.
type world struct {
	*testing.T
	client.Client

	ctx        context.Context //nolint:containedctx // it is the scenario's time
	seed       uint64
	rng        *rand.Rand
	scenario   *scenario
	namespaces []string
	wechat     *wechattest.Server
	// apiHost is the API server that operators use; "" for the one that all share.
	apiHost  string
	replicas []*replica
	args     []string
	first    plan
	start    time.Time

	mu           sync.Mutex
	targets      []*targetRef
	outages      []span
	facts        map[types.NamespacedName]*facts
	rivalTickets map[string]bool
}

// targetRef is a target Secret that is judged.
type targetRef struct {
	name types.NamespacedName
	// resource is the name of the WeChatAppToken, and account the number of its account.
	resource string
	account  int
	appID    string
	mode     wechattest.Mode
	interval time.Duration
	// tickets are those that the resource asks for, under their usual keys.
	tickets []v1alpha1.TicketType
	// since is when the resource was made, and until when the test deleted it or made it impossible to serve; zero for never.
	since, until time.Time
}

func newWorld(ctx context.Context, t *testing.T, sc *scenario, seed uint64) *world {
	t.Helper()
	h := fnv.New64a()
	_, _ = h.Write([]byte(sc.name))
	seed ^= h.Sum64()
	w := &world{
		T: t, Client: admin, ctx: ctx, scenario: sc, seed: seed, rng: rand.New(rand.NewPCG(seed, 0)),
		start: time.Now(), facts: map[types.NamespacedName]*facts{}, rivalTickets: map[string]bool{},
	}
	var err error
	if w.wechat, err = wechattest.NewServer(wechattest.Options{AutoApps: true, Life: sc.life}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.wechat.Close)
	for range max(sc.namespaces, 1) {
		w.addNamespace()
	}
	return w
}

func (w *world) addNamespace() string {
	w.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: w.scenario.name + "-"}}
	w.must(w.Create(w.ctx, ns))
	w.namespaces = append(w.namespaces, ns.Name)
	return ns.Name
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil && w.ctx.Err() == nil {
		w.Fatal(err)
	}
}

// operate starts operators for the scenario's namespaces; with election when there are several that know of each other.
func (w *world) operate(n int, election bool, first plan, args ...string) {
	w.Helper()
	namespaces := w.namespaces[0]
	for _, ns := range w.namespaces[1:] {
		namespaces += "," + ns
	}
	args = append([]string{"--namespaces=" + namespaces}, args...)
	if !slices.ContainsFunc(args, func(a string) bool { return len(a) > 18 && a[:18] == "--wechat-endpoints" }) {
		args = append(args, "--wechat-endpoints="+w.wechat.URL())
	}
	if election {
		args = append(args, "--leader-elect", "--leader-election-namespace="+testenv.OperatorNamespace)
	} else {
		args = append(args, "--leader-elect=false")
	}
	w.args, w.first = args, first
	for range n {
		w.operateMore()
	}
}

// operateMore starts one more operator with the same arguments.
func (w *world) operateMore() {
	w.Helper()
	i := len(w.replicas)
	name := fmt.Sprintf("%s-%d", w.scenario.name, i)
	config, err := env.Operator(w.ctx, name)
	w.must(err)
	if w.apiHost != "" {
		config.Host = w.apiHost
	}
	w.replicas = append(w.replicas, startReplica(w.T, operatorBinary, name, filesDir, newAPIProxy(w.T, config, w.seed+uint64(i)), w.first, w.args...))
}

// appID gives the i-th account of the scenario.
func (w *world) appID(i int) string { return fmt.Sprintf("wx%08x%08x", uint32(w.seed), i) }

func appSecret(i int) string { return fmt.Sprintf("%032x", i+1) }

// addToken makes a resource with credentials of its own, whose target is judged from its first token on.
func (w *world) addToken(namespace string, account int, name string, mode v1alpha1.Mode, mutate ...func(*v1alpha1.WeChatAppToken)) *targetRef {
	w.Helper()
	credentials := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name + "-credentials"},
		StringData: map[string]string{"appSecret": appSecret(account)},
	}
	w.must(client.IgnoreAlreadyExists(w.Create(w.ctx, credentials)))
	t := &v1alpha1.WeChatAppToken{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: v1alpha1.WeChatAppTokenSpec{
			AppID: w.appID(account), Mode: mode,
			CredentialsSecretRef: v1alpha1.CredentialsSecretReference{Name: credentials.Name},
			CheckInterval:        metav1.Duration{Duration: 30 * time.Second},
		},
	}
	for _, f := range mutate {
		f(t)
	}
	since := time.Now()
	w.must(w.Create(w.ctx, t))
	ref := &targetRef{
		name: types.NamespacedName{Namespace: namespace, Name: t.TargetName()}, resource: name, account: account, appID: t.Spec.AppID,
		mode: wechattest.Mode(mode), interval: t.Spec.CheckInterval.Duration, since: since,
	}
	for _, ticket := range t.Spec.Tickets {
		ref.tickets = append(ref.tickets, ticket.Type)
	}
	w.mu.Lock()
	w.targets = append(w.targets, ref)
	w.mu.Unlock()
	return ref
}

// addStable makes a Stable resource with an account of its own.
func (w *world) addStable(mutate ...func(*v1alpha1.WeChatAppToken)) *targetRef {
	w.Helper()
	return w.addAccount(v1alpha1.ModeStable, 0, mutate...)
}

// addLegacy makes a Legacy resource with an account of its own, whose tokens have that life.
func (w *world) addLegacy(life time.Duration, mutate ...func(*v1alpha1.WeChatAppToken)) *targetRef {
	w.Helper()
	return w.addAccount(v1alpha1.ModeLegacy, life, mutate...)
}

func (w *world) addAccount(mode v1alpha1.Mode, life time.Duration, mutate ...func(*v1alpha1.WeChatAppToken)) *targetRef {
	w.Helper()
	account := len(w.targets)
	w.wechat.SetApp(wechattest.App{ID: w.appID(account), Life: life, Tickets: w.scenario.ticketRules()})
	return w.addToken(w.namespaces[account%len(w.namespaces)], account, fmt.Sprintf("t%03d", account), mode, mutate...)
}

// outage runs something in which WeChat or the API server cannot be reached.
func (w *world) outage(f func()) {
	from := time.Now()
	f()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.outages = append(w.outages, span{from, time.Now()})
}

func (w *world) factsOf(name types.NamespacedName) *facts {
	f := w.facts[name]
	if f == nil {
		f = &facts{}
		w.facts[name] = f
	}
	return f
}

// edit does something to a target that its owner should not do, and notes when.
func (w *world) edit(name types.NamespacedName, do func() error) {
	w.Helper()
	from := time.Now()
	w.must(client.IgnoreNotFound(do()))
	w.mu.Lock()
	defer w.mu.Unlock()
	f := w.factsOf(name)
	f.edits = append(f.edits, span{from, time.Now()})
}

// token is a WeChatAppToken to be deleted or patched.
func (r *targetRef) token() *v1alpha1.WeChatAppToken {
	return &v1alpha1.WeChatAppToken{ObjectMeta: metav1.ObjectMeta{Namespace: r.name.Namespace, Name: r.resource}}
}

// asked notes a request that ends a token.
func (w *world) asked(name types.NamespacedName) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f := w.factsOf(name)
	f.requests = append(f.requests, time.Now())
}

// sleep waits; false when the scenario's time is over.
func (w *world) sleep(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-w.ctx.Done():
		return false
	}
}

// between draws a duration.
func (w *world) between(low, high time.Duration) time.Duration {
	return low + time.Duration(w.rng.Int64N(int64(high-low)+1))
}

// until waits for something, with the patience of the scenario's time; false when it did not come.
func (w *world) until(patience time.Duration, met func() bool) bool {
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if met() {
			return true
		}
		if !w.sleep(50 * time.Millisecond) {
			return false
		}
	}
	return met()
}

// held is what the observer saw last.
func (w *world) held(ref *targetRef) (version, bool) {
	h := watching.history(ref.name)
	if len(h) == 0 {
		return version{}, false
	}
	return h[len(h)-1], true
}

// ready waits until each target holds a valid token, and the tickets that its resource asks for.
func (w *world) ready(refs ...*targetRef) bool {
	return w.until(60*time.Second, func() bool {
		return !slices.ContainsFunc(refs, func(r *targetRef) bool {
			v, ok := w.held(r)
			return !ok || v.gone || !w.wechat.Valid(v.token) || !slices.ContainsFunc(w.wechat.Tokens(r.appID),
				func(t wechattest.IssuedToken) bool { return t.Token == v.token }) || !w.holdsTickets(r)
		})
	})
}

// evidence is what happened to all targets.
type evidence struct {
	// crashes are the ends of operator processes, and lost the calls whose answer did not get through.
	crashes, lost []time.Time
	landed        map[string]time.Time
}

func (w *world) evidence(calls []wechattest.Call) evidence {
	e := evidence{landed: map[string]time.Time{}}
	for _, c := range calls {
		if c.Minted && !c.Finished {
			e.lost = append(e.lost, c.At)
		}
	}
	for _, o := range w.replicas {
		e.crashes = append(e.crashes, o.crashes()...)
	}
	for _, ref := range w.known() {
		for _, v := range watching.history(ref.name) {
			if at, ok := e.landed[v.token]; !ok || v.at.Before(at) {
				e.landed[v.token] = v.at
			}
		}
	}
	return e
}

// known are the targets so far.
func (w *world) known() []*targetRef {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.targets)
}

// subject is what is known of a target until a moment, and until when it is to be judged.
func (w *world) subject(ref *targetRef, e evidence, end time.Time) (s *subject, until time.Time) {
	w.mu.Lock()
	f := *w.factsOf(ref.name)
	f.outages, f.edits, f.requests = slices.Concat(f.outages, w.outages), slices.Clone(f.edits), slices.Clone(f.requests)
	if until = end; !ref.until.IsZero() && ref.until.Before(end) {
		until = ref.until
	}
	w.mu.Unlock()
	f.crashes, f.lostCalls, f.rivalTickets = e.crashes, e.lost, w.rivalTickets
	lag := w.scenario.lag
	if lag == 0 {
		lag = kubeletLag
	}
	return &subject{
		history: watching.history(ref.name).span(ref.since, until), appID: ref.appID, mode: ref.mode, tokens: w.wechat.Tokens(ref.appID),
		landed: e.landed, interval: ref.interval, lag: lag, facts: f,
	}, until
}

// ticketOf is what is known of a ticket of the same target.
func (w *world) ticketOf(ref *targetRef, of *subject, kind v1alpha1.TicketType, until time.Time) *subject {
	held := watching.historyOf(ref.name, ticketKey(kind)).span(ref.since, until)
	return ticketSubject(of, kind, held, w.wechat.Tickets(ref.appID, kind))
}

// result judges all targets of the scenario.
func (w *world) result() *result {
	end := time.Now()
	r := &result{scenario: w.scenario, verdict: verdict{excluded: map[byte]int{}}, tickets: verdict{excluded: map[byte]int{}}}
	calls := w.wechat.Calls(wechattest.Filter{})
	r.calls, r.busiest = w.wechat.Count(wechattest.Filter{}), busiestMinute(calls)
	for _, o := range w.replicas {
		r.statusWrites += o.api.statusWrites.Load()
		r.runs += o.starts
	}
	e := w.evidence(calls)
	rng := rand.New(rand.NewPCG(w.seed, 2))
	for _, ref := range w.targets {
		s, until := w.subject(ref, e, end)
		r.judge(ref.name.String(), s, until, rng)
		for _, kind := range ref.tickets {
			r.tickets.judge(ref.name.String()+" "+string(kind), w.ticketOf(ref, s, kind, until), until, rng)
		}
	}
	return r
}
