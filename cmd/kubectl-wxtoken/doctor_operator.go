// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/labels"
	utilversion "k8s.io/apimachinery/pkg/util/version"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

const (
	// operatorName is the label app.kubernetes.io/name of the operator's Deployment, and the prefix of its Leases' names.
	operatorName = v1alpha1.ManagedByValue
	nameLabel    = "app.kubernetes.io/name"
	// leaseGrace is the age of a Lease's last renewal from which on its holder is taken for dead.
	leaseGrace = 30 * time.Second
)

// checkOperator checks that an operator runs, that it has a leader, and that exactly one operator serves each resource.
func (x *examination) checkOperator(ctx context.Context, r *report) error {
	looked := true
	gap := func(err error) {
		if err != nil {
			looked = false
			r.gap(err)
		}
	}
	l := &appsv1.DeploymentList{}
	err := x.cluster.List(ctx, l, client.MatchingLabels{nameLabel: operatorName})
	gap(explain(err, "list Deployments of all namespaces"))
	for i := range l.Items {
		x.checkDeployment(&l.Items[i], r)
	}
	x.operators = slices.DeleteFunc(l.Items, isGateway)
	leases, err := x.checkLeases(ctx, r)
	gap(err)
	x.checkSilence(r)
	if len(x.operators) > 0 {
		x.checkServed(r)
		return nil
	}
	if leases == 0 && looked {
		x.noOperator(r)
	}
	return nil
}

// isGateway reports whether a Deployment is that of the gateway, which serves calls and no resources.
func isGateway(d appsv1.Deployment) bool { return d.Labels["control-plane"] == "gateway" }

// noOperator reports that no operator was found. That is an error, unless the statuses of the resources are up to date all the same.
func (x *examination) noOperator(r *report) {
	next := "Install it as the README says, or look for it: it may carry another label, or run outside this cluster."
	what := fmt.Sprintf("no Deployment with the label %s=%s and no Lease %s… was found", nameLabel, operatorName, operatorName)
	served := slices.ContainsFunc(x.tokens, func(t look) bool { return t.ready != nil }) && len(x.silent()) == 0
	if served {
		r.add(levelWarning, next, "%s; the statuses are up to date, so one runs somewhere", what)
		return
	}
	r.add(levelError, next, "%s", what)
}

func (x *examination) checkDeployment(d *appsv1.Deployment, r *report) {
	name := d.Namespace + "/" + d.Name
	pods := fmt.Sprintf("Look at the pods and their logs:\nkubectl get pods -n %s -l %s=%s\n%s",
		d.Namespace, nameLabel, operatorName, logsOf(d.Namespace))
	want := replicasOf(d)
	switch ready := d.Status.ReadyReplicas; {
	case want == 0:
		r.add(levelError, fmt.Sprintf("kubectl scale deployment %s -n %s --replicas=2", d.Name, d.Namespace),
			"Deployment %s is scaled to 0 replicas", name)
	case ready == 0:
		r.add(levelError, pods, "Deployment %s has no ready replica of %d", name, want)
	case ready < want:
		r.add(levelWarning, pods, "Deployment %s has %d of %d replicas ready", name, ready, want)
	default:
		r.add(levelOK, "", "Deployment %s has %d of %d replicas ready", name, ready, want)
	}
}

// replicasOf returns how many replicas a Deployment should have.
func replicasOf(d *appsv1.Deployment) int32 {
	if d.Spec.Replicas == nil {
		return 1
	}
	return *d.Spec.Replicas
}

// checkLeases checks that each Lease of an operator has a live holder, and returns the number of Leases. The name of a Lease follows from
// the namespaces and the selector of its operator, so one without a holder is left over from other flags if each operator has another one.
func (x *examination) checkLeases(ctx context.Context, r *report) (found int, err error) {
	l := &coordinationv1.LeaseList{}
	if err := x.cluster.List(ctx, l); err != nil {
		return 0, explain(err, "list Leases of all namespaces")
	}
	l.Items = slices.DeleteFunc(l.Items, func(lease coordinationv1.Lease) bool { return !strings.HasPrefix(lease.Name, operatorName) })
	for i := range l.Items {
		lease := &l.Items[i]
		name, spec := lease.Namespace+"/"+lease.Name, lease.Spec
		level, next := levelError, "Look at the operator's logs:\n"+logsOf(lease.Namespace)
		if x.allLead(lease.Namespace, l.Items) {
			level = levelNote
			next = fmt.Sprintf("It is left over from other flags:\nkubectl delete lease %s -n %s", lease.Name, lease.Namespace)
		}
		switch {
		case x.leads(spec):
			r.add(levelOK, "", "Lease %s: %s leads", name, *spec.HolderIdentity)
		case spec.HolderIdentity == nil || *spec.HolderIdentity == "":
			r.add(level, next, "Lease %s: nobody leads", name)
		default:
			r.add(level, next, "Lease %s: %s no longer leads, it last renewed the Lease %s", name, *spec.HolderIdentity,
				lastRenewed(spec, x.now()))
		}
	}
	return len(l.Items), nil
}

// leads reports whether a Lease has a live holder.
func (x *examination) leads(spec coordinationv1.LeaseSpec) bool {
	return spec.HolderIdentity != nil && *spec.HolderIdentity != "" && spec.RenewTime != nil && x.now().Sub(spec.RenewTime.Time) <= leaseGrace
}

// allLead reports whether as many Leases of a namespace have a live holder as there are operators in it that should run.
func (x *examination) allLead(namespace string, leases []coordinationv1.Lease) bool {
	running, leading := 0, 0
	for i := range x.operators {
		if d := &x.operators[i]; d.Namespace == namespace && replicasOf(d) > 0 {
			running++
		}
	}
	for i := range leases {
		if leases[i].Namespace == namespace && x.leads(leases[i].Spec) {
			leading++
		}
	}
	return leading > 0 && leading >= running
}

// logsOf returns the command that shows the logs of the operator in a namespace.
func logsOf(namespace string) string {
	return fmt.Sprintf("kubectl logs -n %s -l %s=%s --prefix --tail=100", namespace, nameLabel, operatorName)
}

func lastRenewed(spec coordinationv1.LeaseSpec, now time.Time) string {
	if spec.RenewTime == nil {
		return "never"
	}
	return ago(spec.RenewTime.Time, now)
}

// silent returns the resources that no operator seems to serve.
func (x *examination) silent() []look {
	var out []look
	for _, t := range x.tokens {
		if t.unseen() || t.overdue() || t.state() == stateExpired {
			out = append(out, t)
		}
	}
	return out
}

func (x *examination) checkSilence(r *report) {
	for _, t := range x.silent() {
		x.told[t.fullName()] = true
		what := "its refresh is overdue and the status gives no reason"
		switch {
		case t.unseen():
			what = fmt.Sprintf("no operator has seen it since it was created %s", ago(t.CreationTimestamp.Time, t.now))
		case t.state() == stateExpired:
			what = fmt.Sprintf("its token expired %s and the status was not updated", ago(t.Status.Token.ExpirationTime.Time, t.now))
		}
		r.add(levelError, "The operator does not run, does not serve this namespace, or cannot reach the API server: look at its logs.",
			"%s: %s", t.fullName(), what)
	}
}

// checkServed checks that the flags of exactly one operator cover each resource.
func (x *examination) checkServed(r *report) {
	for _, t := range x.tokens {
		var by []string
		for i := range x.operators {
			if d := &x.operators[i]; serves(d, t.WeChatAppToken) {
				by = append(by, d.Namespace+"/"+d.Name)
			}
		}
		switch len(by) {
		case 0:
			r.add(levelError, "Add the namespace to --namespaces, or the label to the resource.",
				"%s: no operator serves it, because of --namespaces or --watch-label-selector", t.fullName())
		case 1:
		default:
			r.add(levelError, "Give them disjoint --namespaces or --watch-label-selector, or remove one.",
				"%s: several operators serve it: %s", t.fullName(), strings.Join(by, ", "))
		}
	}
}

// serves reports whether the flags of an operator cover a resource.
func serves(d *appsv1.Deployment, t *v1alpha1.WeChatAppToken) bool {
	if namespaces := flagOf(d, "namespaces"); strings.TrimSpace(namespaces) != "" {
		served := slices.ContainsFunc(strings.Split(namespaces, ","), func(n string) bool { return strings.TrimSpace(n) == t.Namespace })
		if !served {
			return false
		}
	}
	selector, err := labels.Parse(flagOf(d, "watch-label-selector"))
	return err != nil || selector.Matches(labels.Set(t.Labels))
}

// flagOf returns the value of one of the operator's flags, or an empty string if it is not set. The flag may be written as
// --flag=value, as -flag=value, or as two arguments.
func flagOf(d *appsv1.Deployment, name string) string {
	for _, c := range d.Spec.Template.Spec.Containers {
		for i, arg := range c.Args {
			key, value, found := strings.Cut(strings.TrimLeft(arg, "-"), "=")
			if key != name || !strings.HasPrefix(arg, "-") {
				continue
			}
			if !found && i+1 < len(c.Args) && !strings.HasPrefix(c.Args[i+1], "-") {
				return c.Args[i+1]
			}
			if !found {
				return "true"
			}
			return value
		}
	}
	return ""
}

// checkVersions compares the version of this plugin with the image tags of the operators.
func (x *examination) checkVersions(_ context.Context, r *report) error {
	ours, err := utilversion.ParseSemantic(releaseVersion())
	if err != nil {
		r.add(levelNote, "", "this plugin is %s, which is not a release, so it is not compared", releaseVersion())
	}
	for i := range x.operators {
		d := &x.operators[i]
		name, tag := d.Namespace+"/"+d.Name, imageTag(d)
		theirs, parseErr := utilversion.ParseSemantic(tag)
		switch {
		case d.Status.UpdatedReplicas < d.Status.Replicas:
			r.add(levelWarning, fmt.Sprintf("kubectl rollout status deployment/%s -n %s", d.Name, d.Namespace),
				"Deployment %s: two versions run at the same time, a rollout is under way or stuck", name)
		case parseErr != nil:
			r.add(levelNote, "", "Deployment %s runs the image tag %q, which names no version", name, tag)
		case err != nil:
			r.add(levelNote, "", "Deployment %s runs %s", name, tag)
		case ours.Major() != theirs.Major() || ours.Minor() != theirs.Minor():
			r.add(levelWarning, "Update the older one.", "Deployment %s runs %s, this plugin is %s", name, tag, releaseVersion())
		default:
			r.add(levelOK, "", "Deployment %s runs %s, this plugin is %s", name, tag, releaseVersion())
		}
	}
	return nil
}

// imageTag returns the tag of the operator's image, or an empty string if it has none.
func imageTag(d *appsv1.Deployment) string {
	containers := d.Spec.Template.Spec.Containers
	if len(containers) == 0 {
		return ""
	}
	image, _, _ := strings.Cut(containers[0].Image, "@")
	if i := strings.LastIndex(image, ":"); i > strings.LastIndex(image, "/") {
		return image[i+1:]
	}
	return ""
}
