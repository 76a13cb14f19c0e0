// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// usersPerDelivery are as many pods as make enough changes in the time that the steps take anyway.
const usersPerDelivery = 10

// leastChanges make a p99 worth saying.
const leastChanges = 20

// tokenUser is a pod that uses the token of a WeChatAppToken all the time.
type tokenUser struct {
	name     string
	delivery string
}

// usage is what a pod answers, see token-user.
type usage struct {
	Used       int      `json:"used"`
	Unanswered []string `json:"unanswered"`
	Refused    []struct {
		At          time.Time `json:"at"`
		Fingerprint string    `json:"fingerprint"`
		Errcode     int       `json:"errcode"`
		Errmsg      string    `json:"errmsg"`
	} `json:"refused"`
	Seen []struct {
		At          time.Time `json:"at"`
		Fingerprint string    `json:"fingerprint"`
	} `json:"seen"`
}

// startUsers makes WeChatAppTokens, and for each a pod that uses its token.
func (w *world) startUsers(t *testing.T, delivery string) {
	t.Helper()
	var all strings.Builder
	for n := range usersPerDelivery {
		u := tokenUser{name: fmt.Sprintf("%s-%d", strings.ToLower(delivery), n), delivery: delivery}
		w.users = append(w.users, u)
		all.WriteString(tokenManifests(u.name, appIDOf(delivery, n), delivery))
		all.WriteString(userManifest(u.name))
	}
	w.apply(t, all.String())
}

// appIDOf gives each resource an account of its own.
func appIDOf(what string, n int) string {
	return "wx" + (strings.ToLower(what) + "0000000000000000")[:14] + fmt.Sprintf("%02d", n)
}

// tokenManifests are credentials and a WeChatAppToken; the default delivery is left unsaid.
func tokenManifests(name, appID, delivery string) string {
	target := ""
	if delivery == "Prompt" {
		target = "\n    delivery: Prompt"
	}
	return fmt.Sprintf(`---
apiVersion: v1
kind: Secret
metadata: {name: %[1]s-wechat, namespace: %[2]s}
stringData: {appSecret: %[3]s}
---
apiVersion: wechat.apptoken.dev/v1alpha1
kind: WeChatAppToken
metadata: {name: %[1]s, namespace: %[2]s}
spec:
  appID: %[4]s
  credentialsSecretRef: {name: %[1]s-wechat}
  target:
    name: %[1]s-token%[5]s
`, name, shop, firstSecret, appID, target)
}

const (
	firstSecret  = "0123456789abcdef0123456789abcdef"
	secondSecret = "fedcba9876543210fedcba9876543210"
)

func userManifest(name string) string {
	return fmt.Sprintf(`---
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, namespace: %[2]s, labels: {app.kubernetes.io/name: token-user}}
spec:
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: 1
  securityContext: {runAsNonRoot: true, fsGroup: 65532, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: token-user
    image: token-user:%[3]s
    imagePullPolicy: Never
    args: [--wechat-url=%[4]s, --wechat-ca-file=/etc/wechat-ca/ca.crt]
    securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
    volumeMounts:
    - {name: wechat, mountPath: /var/run/wechat, readOnly: true}
    - {name: ca, mountPath: /etc/wechat-ca, readOnly: true}
  volumes:
  - {name: wechat, secret: {secretName: %[1]s-token}}
  - {name: ca, configMap: {name: wechat-ca}}
`, name, shop, firstTag, wechatURL)
}

// usage asks a pod, by the API server.
func (w *world) usage(ctx context.Context, u tokenUser) (usage, error) {
	var got usage
	body, err := w.typed.CoreV1().RESTClient().Get().Namespace(shop).Resource("pods").Name(u.name + ":8080").
		SubResource("proxy").Suffix("stats").DoRaw(ctx)
	if err != nil {
		return got, err
	}
	return got, json.Unmarshal(body, &got)
}

// refusals are the calls that WeChat refused so far, of all pods that can be asked.
func (w *world) refusals(t *testing.T) (found []string) {
	t.Helper()
	for _, u := range w.users {
		got, err := w.usage(t.Context(), u)
		if err != nil {
			continue // it is starting, or gone with its namespace; judgeUsers wants each
		}
		for _, r := range got.Refused {
			found = append(found, fmt.Sprintf("%s at %s: errcode %d for token %s: %s", u.name, r.At.Format(time.TimeOnly), r.Errcode, r.Fingerprint, r.Errmsg))
		}
	}
	return found
}

// deliveries are the times from the API server's word of a token to its use in a pod, and how many tokens a volume never had.
func (w *world) deliveries(t *testing.T, delivery string) (took []time.Duration, used, unanswered int) {
	t.Helper()
	for _, u := range w.users {
		if u.delivery != delivery {
			continue
		}
		got, err := w.usage(t.Context(), u)
		if err != nil {
			t.Fatalf("%s: %v", u.name, err)
		}
		used += got.Used
		unanswered += len(got.Unanswered)
		for i, s := range got.Seen {
			if written, known := w.watch.at(s.Fingerprint); known && i > 0 { // the first was there before the pod
				took = append(took, s.At.Sub(written))
			}
		}
	}
	return took, used, unanswered
}
