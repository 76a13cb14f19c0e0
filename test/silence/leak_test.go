// SPDX-License-Identifier: Apache-2.0

package silence

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// leakRole in the environment makes this program the one that leaks.
const leakRole = "SILENCE_LEAKS"

// TestTheSearchFindsALeak plants a token and an AppSecret, in every form, in every place that is searched.
func TestTheSearchFindsALeak(t *testing.T) {
	ns := newNamespace(t)
	program, err := os.Executable()
	must(t, err)
	forms := allForms()
	p := start(t, program, string(env.KubeConfig), "http://127.0.0.1:1", []string{leakRole + "=" + ns, "LEAK=" + forms}, forms)
	eventually(t, "the leaks are there", func() bool { return strings.Contains(fetch(t.Context(), p.metrics), "leak") })
	places := p.places(t, ns)
	for _, place := range []string{
		"stdout", "stderr", "dump", "environ", "cmdline", "metrics", "probes",
		"events.", "events.events.k8s.io", "wechatapptokens.wechat.apptoken.dev", "secrets.", "leases.coordination.k8s.io",
	} {
		for name, value := range map[string]string{"token": needle, "AppSecret": appSecret} {
			if found, _ := newIndex(value).find(places[place]); len(found) == 0 {
				t.Errorf("%s: the search does not find the %s", place, name)
			}
		}
	}
	for _, place := range []string{"audit", "comm"} {
		if found, _ := newIndex(needle, appSecret).find(places[place]); len(found) > 0 {
			t.Errorf("%s: the search finds %v, which nobody planted", place, found)
		}
	}
}

// allForms is every form of both values, a line each.
func allForms() string {
	var lines []string
	for _, value := range []string{needle, appSecret} {
		for _, text := range formsOf(value) {
			lines = append(lines, text)
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// leak is the program that leaks: it runs with the operator's flags.
func leak(namespace string) error {
	forms := os.Getenv("LEAK")
	fs := flag.NewFlagSet("leak", flag.ContinueOnError)
	config, metrics := fs.String("kubeconfig", "", ""), fs.String("metrics-bind-address", "", "")
	probes := fs.String("health-probe-bind-address", "", "")
	for _, name := range []string{"zap-log-level", "wechat-endpoints", "wechat-timeout"} {
		fs.String(name, "", "")
	}
	fs.Bool("metrics-secure", true, "")
	if err := fs.Parse(os.Args[1:]); err != nil {
		return err
	}
	_, _ = fmt.Fprintln(os.Stdout, forms)
	_, _ = fmt.Fprintln(os.Stderr, forms)
	if err := leakObjects(*config, namespace, forms); err != nil {
		return err
	}
	serve := func(address, prefix string) {
		server := &http.Server{Addr: address, ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(
			func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, prefix, forms) })}
		_ = server.ListenAndServe() // ends with the process
	}
	go serve(*probes, "probe")
	go serve(*metrics, "leak")
	quit := make(chan os.Signal, 1)
	signal.Notify(quit, syscall.SIGQUIT)
	<-quit
	panic(forms)
}

func leakObjects(kubeconfig, namespace, forms string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	c, err := client.New(config, client.Options{Scheme: scheme()})
	if err != nil {
		return err
	}
	meta := metav1.ObjectMeta{Namespace: namespace, Name: "leak"}
	token := newToken(namespace, "leak", "wx0000000000000000", v1alpha1.ModeStable)
	secret := &corev1.Secret{ObjectMeta: *meta.DeepCopy(),
		StringData: map[string]string{tokenKey: "meant to be here", "other": needle + appSecret}}
	secret.Labels = map[string]string{v1alpha1.LabelManagedBy: v1alpha1.ManagedByValue}
	lease := &coordinationv1.Lease{ObjectMeta: meta}
	lease.Annotations = map[string]string{"leak": forms}
	var errs []error
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	errs = append(errs, c.Create(ctx, secret), c.Create(ctx, lease), c.Create(ctx, token))
	token.Status.Conditions = []metav1.Condition{{
		Type: "Ready", Status: "False", Reason: "Leak", Message: forms, LastTransitionTime: metav1.Now(),
	}}
	errs = append(errs, c.Status().Update(ctx, token))
	for i, line := range strings.Split(forms, "\n") {
		event := &eventsv1.Event{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("leak-%d", i)}, EventTime: metav1.NowMicro(),
			ReportingController: "leak", ReportingInstance: "leak", Action: "Leak", Reason: "Leak", Type: "Normal", Note: line,
			Regarding: corev1.ObjectReference{Namespace: namespace, Name: "leak"},
		}
		errs = append(errs, c.Create(ctx, event))
	}
	return errors.Join(errs...)
}
