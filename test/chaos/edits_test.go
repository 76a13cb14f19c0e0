// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

func secretNamed(name types.NamespacedName) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name}}
}

// merge patches a Secret.
func (w *world) merge(name types.NamespacedName, patch any) error {
	return w.mergeInto(secretNamed(name), patch)
}

func (w *world) mergeInto(o client.Object, patch any) error {
	raw, err := json.Marshal(patch)
	if err != nil {
		return err
	}
	return w.Patch(w.ctx, o, client.RawPatch(types.MergePatchType, raw))
}

type object = map[string]any

func encoded(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// vandalise does one of the things that people do to Secrets.
func (w *world) vandalise(ref *targetRef) {
	kind := w.rng.IntN(5)
	w.edit(ref.name, func() error {
		switch kind {
		case 0:
			return w.merge(ref.name, object{"data": object{tokenKey: encoded("edited by hand")}})
		case 1:
			return w.merge(ref.name, object{"data": nil})
		case 2:
			return w.merge(ref.name, object{"metadata": object{"labels": nil, "annotations": nil}})
		case 3:
			return w.merge(ref.name, object{"metadata": object{"labels": nil}, "data": object{"expires_at": encoded("tomorrow")}})
		default:
			return w.Delete(w.ctx, secretNamed(ref.name))
		}
	})
}

// edits spoils targets and credentials.
func (w *world) edits() {
	w.operate(1, false, plan{})
	refs := w.mixed(20, 2)
	for i := 0; w.sleep(w.between(10*time.Second, 20*time.Second)); i++ {
		ref := refs[w.rng.IntN(20)]
		switch {
		case i == 3 || i == 6:
			w.vandalise(refs[20+i/6]) // Legacy: each repair costs a mint
		case i%5 == 4:
			w.vandaliseTicket([]*targetRef{refs[0], refs[1], refs[20], refs[21]}[w.rng.IntN(4)])
		case i%4 == 3:
			w.loseCredentials(ref)
		case i%4 == 2:
			w.replaceCredentials(ref)
		default:
			w.vandalise(ref)
		}
	}
}

func credentialsOf(ref *targetRef) types.NamespacedName {
	return types.NamespacedName{Namespace: ref.name.Namespace, Name: ref.name.Name + "-credentials"}
}

// loseCredentials deletes the credentials and puts them back a minute later at most.
func (w *world) loseCredentials(ref *targetRef) {
	secret := secretNamed(credentialsOf(ref))
	w.must(w.Get(w.ctx, credentialsOf(ref), secret))
	from := time.Now()
	w.must(w.Delete(w.ctx, secret))
	w.sleep(w.between(time.Second, 20*time.Second))
	secret.ResourceVersion, secret.UID = "", ""
	w.must(w.Create(w.ctx, secret))
	w.mu.Lock()
	defer w.mu.Unlock()
	f := w.factsOf(ref.name)
	f.outages = append(f.outages, span{from, time.Now()})
}

// replaceCredentials resets the AppSecret at WeChat, and in the Secret a moment later.
func (w *world) replaceCredentials(ref *targetRef) {
	secret := fmt.Sprintf("%032x", w.rng.Uint64())
	w.wechat.SetSecret(ref.appID, secret)
	w.sleep(w.between(0, 5*time.Second))
	w.must(w.merge(credentialsOf(ref), object{"data": object{"appSecret": encoded(secret)}}))
}

// fleet runs 200 resources of 20 accounts in 10 namespaces, and makes the fetchers of Legacy accounts unable to fetch.
func (w *world) fleet() {
	w.operate(2, true, plan{})
	const accounts = 20
	for i := range 200 {
		account := i % accounts
		app, mode := wechattest.App{ID: w.appID(account), Tickets: w.scenario.ticketRules()}, v1alpha1.ModeStable
		if account%2 == 1 {
			app.Life, mode = legacyLife, v1alpha1.ModeLegacy
		}
		w.wechat.SetApp(app)
		w.addToken(w.namespaces[(i/accounts)%len(w.namespaces)], account, fmt.Sprintf("t%03d", i), mode, someTickets(account),
			func(t *v1alpha1.WeChatAppToken) { t.Spec.CheckInterval.Duration = time.Minute })
	}
	if !w.ready(w.targets...) && w.ctx.Err() == nil {
		w.Error("not all targets got a token")
	}
	w.pollTickets(w.targets[:3*accounts]...) // those that are not polled learn of a new ticket from a member of their account that is
	for i := 0; w.sleep(w.between(20*time.Second, 40*time.Second)); i++ {
		ref := w.targets[1+2*(i%10)] // the oldest of a Legacy account
		if !ref.until.IsZero() {
			continue
		}
		ref.until = time.Now() // nobody can write it any more, so it is not judged; the other nine are
		switch i % 3 {
		case 0:
			w.must(w.merge(ref.name, object{"immutable": true}))
		case 1:
			foreground := metav1.DeletePropagationForeground
			t := &v1alpha1.WeChatAppToken{ObjectMeta: metav1.ObjectMeta{Namespace: ref.name.Namespace, Name: ref.name.Name}}
			w.must(w.Delete(w.ctx, t, &client.DeleteOptions{PropagationPolicy: &foreground}))
		default:
			w.must(w.merge(ref.name, object{"metadata": object{"labels": object{"locked": "true"}}}))
		}
		if i == 4 { // nothing can be created there from now on; what is there must go on
			w.must(w.Delete(w.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespaces[9]}}))
		}
		if w.rng.IntN(3) == 0 {
			if leader := w.leader(); leader != nil {
				leader.kill()
			}
		}
	}
}

// combined draws from everything.
func (w *world) combined() {
	w.operate(2, true, plan{})
	w.mixed(14, 10)
	attacks := []func(r *replica){
		func(r *replica) { r.kill() },
		func(r *replica) {
			r.signal(syscall.SIGSTOP)
			w.sleep(w.between(5*time.Second, 25*time.Second))
			r.signal(syscall.SIGCONT)
		},
		func(r *replica) {
			r.api.set(silent)
			w.sleep(w.between(5*time.Second, 25*time.Second))
			r.api.set(connected)
		},
		func(*replica) {
			w.outage(func() {
				for _, r := range w.replicas {
					r.api.set(refusing)
				}
				w.sleep(w.between(10*time.Second, 60*time.Second))
				for _, r := range w.replicas {
					r.api.set(connected)
				}
			})
		},
		func(r *replica) {
			r.api.setFaulty(0.4)
			w.sleep(w.between(10*time.Second, 30*time.Second))
			r.api.setFaulty(0)
		},
		func(*replica) {
			w.outage(func() {
				w.wechat.Inject([]wechattest.Fault{{Cut: wechattest.CutBefore}, {Hang: true}, {Errcode: -1}, {Garbage: true}}[w.rng.IntN(4)])
				w.sleep(w.between(5*time.Second, 40*time.Second))
				w.wechat.ClearFaults()
			})
		},
		func(r *replica) {
			w.must(r.setPlan(func(p *plan) { p.Offset = w.between(-10*time.Minute, 10*time.Minute) }))
		},
		func(r *replica) {
			id := fmt.Sprintf("%d", time.Now().UnixNano())
			step := stableSteps[w.rng.IntN(len(stableSteps))]
			w.must(r.setPlan(func(p *plan) { p.Rules = []rule{{ID: id, Step: step}} }))
		},
	}
	for w.sleep(w.between(5*time.Second, 20*time.Second)) {
		attacks[w.rng.IntN(len(attacks))](w.replicas[w.rng.IntN(2)])
	}
}
