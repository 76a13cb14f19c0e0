// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// world is one client and all that belongs to it.
type world struct {
	client                 *v1alpha1.WeChatAppClient
	token                  *v1alpha1.WeChatAppToken
	keys, target, appCreds *corev1.Secret
	// others are more clients, and more Secrets of the operator.
	others  []*v1alpha1.WeChatAppClient
	secrets []*corev1.Secret
}

func secretOf(name string, owner types.UID, kind string, data map[string]string) *corev1.Secret {
	s := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: name, UID: types.UID("uid-of-secret-" + name),
			Labels:      map[string]string{v1alpha1.LabelManagedBy: v1alpha1.ManagedByValue},
			Annotations: map[string]string{v1alpha1.AnnotationOwnerUID: string(owner)},
		},
		Type: corev1.SecretTypeOpaque, Data: map[string][]byte{},
	}
	if kind != "" {
		s.Annotations[v1alpha1.AnnotationOwnerKind] = kind
	}
	for k, v := range data {
		s.Data[k] = []byte(v)
	}
	return s
}

func fingerprint(value string) string { return token.NewValue(value).Fingerprint() }

// newWorld has a client with a key, a key before, a login and a ticket.
func newWorld() *world {
	until := metav1.NewTime(now.Add(time.Hour))
	return &world{
		client: &v1alpha1.WeChatAppClient{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "api", UID: "uid-of-client"},
			Spec: v1alpha1.WeChatAppClientSpec{
				TokenRef:        v1alpha1.TokenReference{Name: "shop"},
				ServiceAccounts: []v1alpha1.ServiceAccountReference{{Namespace: "web", Name: "front"}},
				Key:             &v1alpha1.ClientKeySpec{SecretName: "api-wechat"},
				Paths:           []v1alpha1.ClientPath{"/wxa/*"},
				Login:           true,
				Rate:            v1alpha1.ClientRate{PerReplica: v1alpha1.RateLimit{RequestsPerSecond: 7, Burst: 9}},
			},
			Status: v1alpha1.WeChatAppClientStatus{Key: &v1alpha1.ClientKeyStatus{
				Fingerprint: fingerprint(theKey), PreviousFingerprint: fingerprint(oldKey), PreviousUntilTime: &until,
			}},
		},
		token: &v1alpha1.WeChatAppToken{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "shop", UID: "uid-of-token"},
			Spec: v1alpha1.WeChatAppTokenSpec{
				AppID:                appID,
				CredentialsSecretRef: v1alpha1.CredentialsSecretReference{Name: "creds", Key: "appSecret"},
				Target:               v1alpha1.TargetSpec{Name: "shop-token", AccessTokenKey: "token"},
				Tickets:              []v1alpha1.TicketSpec{{Type: v1alpha1.TicketJSAPI}, {Type: v1alpha1.TicketSDK, Key: "sdk"}},
			},
		},
		keys: secretOf("api-wechat", "uid-of-client", v1alpha1.ClientKind, map[string]string{
			"app_id": appID, "app_secret": theKey, "previous_app_secret": oldKey, "host": "https://gateway", "ca.crt": "-----BEGIN",
		}),
		target: secretOf("shop-token", "uid-of-token", "", map[string]string{
			"token": realToken, "expires_at": "2026-03-01T13:00:00Z", "app_id": appID,
			"jsapi_ticket": ticket, "jsapi_ticket_expires_at": "2026-03-01T13:30:00Z", "sdk": "s", "sdk_expires_at": "soon",
		}),
		appCreds: &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "creds", Labels: map[string]string{v1alpha1.LabelCredentials: "true"}},
			Type:       corev1.SecretTypeOpaque, Data: map[string][]byte{"appSecret": []byte(" " + appSecret + "\n"), "note": []byte("rotate me")},
		},
	}
}

// inputs returns what the caches hold of the world.
func (w *world) inputs(t *testing.T) Inputs {
	t.Helper()
	in := Inputs{
		Clients:     map[types.NamespacedName]*v1alpha1.WeChatAppClient{},
		Tokens:      map[types.NamespacedName]*v1alpha1.WeChatAppToken{},
		Managed:     map[types.NamespacedName]*corev1.Secret{},
		Credentials: map[types.NamespacedName]*corev1.Secret{},
	}
	for _, c := range append(w.others, w.client) {
		put(t, in.Clients, stripClient, c)
	}
	if w.token != nil {
		put(t, in.Tokens, stripToken, w.token)
	}
	for _, s := range append(w.secrets, w.keys, w.target) {
		if s != nil {
			put(t, in.Managed, stripManaged, s)
		}
	}
	if w.appCreds != nil {
		put(t, in.Credentials, stripCredentials, w.appCreds)
	}
	return in
}

// kept returns what the cache keeps of a Secret of the operator.
func kept(t testing.TB, s *corev1.Secret) *corev1.Secret {
	t.Helper()
	out, err := stripManaged(s)
	if err != nil {
		t.Fatal(err)
	}
	return out.(*corev1.Secret)
}

func put[T client.Object](t *testing.T, into map[types.NamespacedName]T, transform func(any) (any, error), o T) {
	t.Helper()
	kept, err := transform(o)
	if err != nil {
		t.Fatal(err)
	}
	into[client.ObjectKeyFromObject(o)] = kept.(T)
}

// built describes a client of a policy in words.
func built(c *Client) string {
	if c == nil {
		return "no client"
	}
	var out []string
	for _, k := range c.Keys {
		name := map[string]string{theKey: "current", oldKey: "before"}[k.Value.Reveal()]
		if !k.BuysUntil.IsZero() {
			name += " until " + k.BuysUntil.UTC().Format("15:04")
		}
		out = append(out, name)
	}
	a := c.Account
	out = append(out, "token "+a.Token.Reveal())
	if !a.ExpiresAt.IsZero() {
		out = append(out, "to "+a.ExpiresAt.Format("15:04"))
	}
	for _, kind := range v1alpha1.TicketTypes() {
		if held, ok := a.Tickets[kind]; ok {
			out = append(out, fmt.Sprintf("%s to %s", kind, held.ExpiresAt.Format("15:04")))
		}
	}
	if !a.AppSecret.IsZero() {
		out = append(out, "AppSecret "+a.AppSecret.Reveal())
	}
	return strings.Join(out, ", ")
}

func TestBuild(t *testing.T) {
	const (
		keys    = "current, before until 13:00, "
		store   = "token " + realToken + ", to 13:00, jsapi to 13:30"
		login   = ", AppSecret " + appSecret
		nothing = "token "
	)
	deleted := metav1.NewTime(now)
	twin := func(w *world, change func(c *v1alpha1.WeChatAppClient)) {
		c := w.client.DeepCopy()
		c.Name, c.UID, c.Spec.Key.SecretName = "twin", "uid-of-twin", "twin-wechat"
		change(c)
		w.others = append(w.others, c)
		w.secrets = append(w.secrets, secretOf("twin-wechat", "uid-of-twin", v1alpha1.ClientKind, map[string]string{"app_secret": theKey}))
	}
	for name, test := range map[string]struct {
		change func(*world)
		want   string
	}{
		"all there":                   {func(*world) {}, keys + store + login},
		"suspended":                   {func(w *world) { w.client.Spec.Suspend = true }, "no client"},
		"being deleted":               {func(w *world) { w.client.DeletionTimestamp = &deleted }, "no client"},
		"without its WeChatAppToken":  {func(w *world) { w.token = nil }, "no client"},
		"with that being deleted":     {func(w *world) { w.token.DeletionTimestamp = &deleted }, "no client"},
		"of a suspended one":          {func(w *world) { w.token.Spec.Suspend = true }, keys + store + login},
		"no key Secret":               {func(w *world) { w.keys = nil }, store + login},
		"no status":                   {func(w *world) { w.client.Status.Key = nil }, store + login},
		"no key in the spec":          {func(w *world) { w.client.Spec.Key = nil }, store + login},
		"a key that is edited":        {func(w *world) { w.keys.Data["app_secret"] = []byte(plainKey) }, "before until 13:00, " + store + login},
		"a key before that is edited": {func(w *world) { w.keys.Data["previous_app_secret"] = []byte(plainKey) }, "current, " + store + login},
		"a key with a newline":        {func(w *world) { w.keys.Data["app_secret"] = []byte(theKey + "\n") }, "before until 13:00, " + store + login},
		"a key in upper case": {func(w *world) {
			upper := strings.ToUpper(theKey)
			w.keys.Data["app_secret"], w.client.Status.Key.Fingerprint = []byte(upper), fingerprint(upper)
		}, "before until 13:00, " + store + login},
		"the status before the Secret": {func(w *world) {
			w.keys.Data = map[string][]byte{"app_secret": []byte(oldKey)}
		}, "before until 13:00, " + store + login},
		"the Secret before the status": {func(w *world) {
			w.client.Status.Key = &v1alpha1.ClientKeyStatus{Fingerprint: fingerprint(oldKey)}
		}, "before, " + store + login},
		"no end of the key before":    {func(w *world) { w.client.Status.Key.PreviousUntilTime = nil }, "current, " + store + login},
		"keys of another owner":       {func(w *world) { w.keys.Annotations[v1alpha1.AnnotationOwnerUID] = "x" }, store + login},
		"keys of a namesake before":   {func(w *world) { w.client.UID = "new" }, store + login},
		"keys of another kind":        {func(w *world) { w.keys.Annotations[v1alpha1.AnnotationOwnerKind] = v1alpha1.Kind }, store + login},
		"keys of no kind":             {func(w *world) { delete(w.keys.Annotations, v1alpha1.AnnotationOwnerKind) }, store + login},
		"keys of no owner":            {func(w *world) { w.client.UID, w.keys.Annotations = "", nil }, store + login},
		"keys being deleted":          {func(w *world) { w.keys.DeletionTimestamp = &deleted }, store + login},
		"keys of another type":        {func(w *world) { w.keys.Type = corev1.SecretTypeTLS }, store + login},
		"a twin":                      {func(w *world) { twin(w, func(*v1alpha1.WeChatAppClient) {}) }, "before until 13:00, " + store + login},
		"a suspended twin":            {func(w *world) { twin(w, func(c *v1alpha1.WeChatAppClient) { c.Spec.Suspend = true }) }, "before until 13:00, " + store + login},
		"a twin that is not known":    {func(w *world) { twin(w, func(c *v1alpha1.WeChatAppClient) { c.Status.Key.Fingerprint = "x" }) }, keys + store + login},
		"no target":                   {func(w *world) { w.target = nil }, keys + nothing + login},
		"a target of another appid":   {func(w *world) { w.target.Data["app_id"] = []byte(otherAppID) }, keys + nothing + login},
		"a target of nobody":          {func(w *world) { w.target.Annotations = nil }, keys + nothing + login},
		"a target of another":         {func(w *world) { w.target.Annotations[v1alpha1.AnnotationOwnerUID] = "x" }, keys + nothing + login},
		"a target of a client":        {func(w *world) { w.target.Annotations[v1alpha1.AnnotationOwnerKind] = v1alpha1.ClientKind }, keys + nothing + login},
		"a target that says its kind": {func(w *world) { w.target.Annotations[v1alpha1.AnnotationOwnerKind] = v1alpha1.Kind }, keys + store + login},
		"no expiry":                   {func(w *world) { delete(w.target.Data, "expires_at") }, keys + "token , jsapi to 13:30" + login},
		"an odd expiry":               {func(w *world) { w.target.Data["expires_at"] = []byte("1772370000") }, keys + "token , jsapi to 13:30" + login},
		"a far expiry":                {func(w *world) { w.target.Data["expires_at"] = []byte("2026-03-01T17:00:00Z") }, keys + "token " + realToken + ", to 17:00, jsapi to 13:30" + login},
		"a past expiry":               {func(w *world) { w.target.Data["expires_at"] = []byte("2026-03-01T11:00:00Z") }, keys + "token " + realToken + ", to 11:00, jsapi to 13:30" + login},
		"a token with a space":        {func(w *world) { w.target.Data["token"] = []byte("a b") }, keys + "token , jsapi to 13:30" + login},
		"a token that is too long":    {func(w *world) { w.target.Data["token"] = []byte(strings.Repeat("a", maxValue+1)) }, keys + "token , jsapi to 13:30" + login},
		"a ticket the spec dropped":   {func(w *world) { w.token.Spec.Tickets = nil }, keys + "token " + realToken + ", to 13:00" + login},
		"no login":                    {func(w *world) { w.client.Spec.Login = false }, keys + store},
		"no credentials":              {func(w *world) { w.appCreds = nil }, keys + store},
		"credentials without a label": {func(w *world) { w.appCreds.Labels = nil }, keys + store},
		"credentials, another label":  {func(w *world) { w.appCreds.Labels[v1alpha1.LabelCredentials] = "false" }, keys + store},
		"credentials, another key":    {func(w *world) { w.token.Spec.CredentialsSecretRef.Key = "note" }, keys + store},
		"credentials, another name":   {func(w *world) { w.token.Spec.CredentialsSecretRef.Name = "other" }, keys + store},
		"credentials, default key":    {func(w *world) { w.token.Spec.CredentialsSecretRef.Key = "" }, keys + store + login},
		"credentials, another type":   {func(w *world) { w.appCreds.Type = corev1.SecretTypeTLS }, keys + store},
		"a client of another space":   {func(w *world) { w.client.Namespace = "elsewhere" }, "no client"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			test.change(w)
			policy := build(w.inputs(t), nil).policy()
			if got := built(policy.ByName(client.ObjectKeyFromObject(w.client))); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			// The same follows if it was different before.
			in, full := w.inputs(t), newWorld().inputs(t)
			share(full.Clients, in.Clients)
			share(full.Tokens, in.Tokens)
			share(full.Managed, in.Managed)
			share(full.Credentials, in.Credentials)
			for _, before := range []*builder{build(full, nil), build(in, nil)} {
				if got := built(build(in, before).policy().ByName(client.ObjectKeyFromObject(w.client))); got != test.want {
					t.Errorf("after another policy\ngot  %s\nwant %s", got, test.want)
				}
			}
		})
	}
}

// share puts what did not change in the place of its copies, as a cache has it.
func share[T client.Object](before, objects map[types.NamespacedName]T) {
	for key, o := range before {
		if is, ok := objects[key]; ok && reflect.DeepEqual(is, o) {
			objects[key] = o
		}
	}
}

func TestBuildClient(t *testing.T) {
	w := newWorld()
	policy := build(w.inputs(t), nil).policy()
	c := policy.ByUID("uid-of-client")
	if c == nil || c.Rate.RequestsPerSecond != 7 || c.Rate.Burst != 9 || !c.Login || !reflect.DeepEqual(c.Paths, []string{"/wxa/*"}) {
		t.Fatalf("%+v", c)
	}
	if owner, k := policy.ByKey(theKey); owner != c || k.Fingerprint != key.Fingerprint() {
		t.Errorf("the key is of %v", owner)
	}
	if !policy.Names(account("web", "front")) || policy.Names(account("shop", "front")) || !policy.KnowsApp(appID) || !policy.AnyLogin() {
		t.Errorf("%+v", policy)
	}
	if got := policy.InNamespace("shop"); len(got) != 1 || got[0] != c || !reflect.DeepEqual(c.Account.TicketTypes, []v1alpha1.TicketType{"jsapi", "sdk"}) {
		t.Errorf("%v, %v", got, c.Account.TicketTypes)
	}
	w.client.Spec.Rate = v1alpha1.ClientRate{}
	if c = build(w.inputs(t), nil).policy().ByUID("uid-of-client"); c.Rate != (v1alpha1.RateLimit{RequestsPerSecond: 50, Burst: 100}) {
		t.Errorf("the default is %+v", c.Rate)
	}
}

// Whether a token or ticket is valid is decided for each call, so a clock that is wrong for a moment hides none.
func TestAlive(t *testing.T) {
	a := &Account{Token: token.NewValue(realToken), ExpiresAt: now.Add(2 * time.Hour)}
	ticket := Ticket{Value: token.NewValue("ticket"), ExpiresAt: a.ExpiresAt}
	for at, want := range map[time.Duration]bool{
		-3 * time.Hour: false, // it would live for five hours
		-time.Hour:     true,
		0:              true,
		2 * time.Hour:  false,
	} {
		if a.Valid(now.Add(at)) != want || ticket.valid(now.Add(at)) != want {
			t.Errorf("after %s: want %t", at, want)
		}
	}
}

// The caches keep nothing but what a policy needs.
func TestTransforms(t *testing.T) {
	w := newWorld()
	w.target.Annotations["note"], w.target.ManagedFields = "x", []metav1.ManagedFieldsEntry{{}}
	w.target.Data["config"], w.target.Data["large"] = []byte("a: b\nc: d\n"), []byte(strings.Repeat("a", maxValue+1))
	for i := range 100 {
		w.target.Data[fmt.Sprintf("a%02d", i)] = []byte("a")
	}
	w.token.Status.TargetSecretName, w.token.Annotations = "x", map[string]string{"a": "b"}
	w.client.Status.Conditions, w.client.ManagedFields = []metav1.Condition{{Type: "Ready"}}, []metav1.ManagedFieldsEntry{{}}
	in := w.inputs(t)

	target := in.Managed[account("shop", "shop-token")]
	if target.Annotations != nil || string(target.Data[ownerUID]) != "uid-of-token" || len(target.Labels) != 0 || target.ManagedFields != nil || len(target.Data) != maxValues+1 {
		t.Errorf("of the target remain %v, %v and %d values", target.Annotations, target.Labels, len(target.Data))
	}
	for _, k := range []string{"app_id", "expires_at", "jsapi_ticket", "jsapi_ticket_expires_at"} {
		if target.Data[k] == nil {
			t.Errorf("the target lost %s", k)
		}
	}
	if target.Data["config"] != nil || target.Data["large"] != nil {
		t.Errorf("the target kept what is no token: %d values", len(target.Data))
	}
	if keys := in.Managed[account("shop", "api-wechat")]; len(keys.Data) != 4 || string(keys.Data[ownerKind]) != v1alpha1.ClientKind {
		t.Errorf("the key Secret kept %d values", len(keys.Data))
	}
	if creds := in.Credentials[account("shop", "creds")]; len(creds.Data) != 1 || string(creds.Data["appSecret"]) != appSecret {
		t.Errorf("the credentials kept %d values", len(creds.Data))
	}
	if tok := in.Tokens[account("shop", "shop")]; tok.Annotations != nil || tok.Status.TargetSecretName != "" {
		t.Errorf("the token kept %+v", tok)
	}
	if c := in.Clients[account("shop", "api")]; c.ManagedFields != nil || c.Status.Conditions != nil || c.Status.Key == nil {
		t.Errorf("the client kept %+v", c)
	}
	if again := kept(t, target); !reflect.DeepEqual(again, target) {
		t.Error("the target loses what it kept if the cache transforms it again")
	}
	for name, transform := range map[string]func(any) (any, error){"managed": stripManaged, "credentials": stripCredentials} {
		if _, err := transform(&corev1.ConfigMap{}); err == nil {
			t.Errorf("%s takes a ConfigMap", name)
		}
	}
}
