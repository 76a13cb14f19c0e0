// SPDX-License-Identifier: Apache-2.0

// Package chaos proves the operator's promise by attack: it runs the real binary against a real API server and a stand-in for
// WeChat, does to it what docs/reliability.md lists, and reads every target Secret as a pod would.
package chaos

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
)

// kubeletLag is how far a volume may be behind its Secret.
const kubeletLag = 90 * time.Second

// What all scenarios share.
var (
	env            *testenv.Environment
	admin          client.Client
	watching       = newObserver()
	operatorBinary string
	filesDir       string
)

func TestMain(m *testing.M) {
	flag.Parse()
	// Scenarios mostly wait, so all of them run side by side.
	if err := flag.Set("test.parallel", "100"); err != nil {
		panic(err) // the flag exists
	}
	var opts []testenv.Option
	if os.Getenv(soakTime) != "" {
		opts = append(opts, testenv.WithoutAuditLog()) // it would hold a line for each of millions of requests
	}
	testenv.Main(m, setUp, opts...)
}

func setUp(ctx context.Context, e *testenv.Environment) (after func() error, err error) {
	env = e
	if filesDir, err = os.MkdirTemp(os.Getenv("CHAOS_DIR"), "chaos-"); err != nil {
		return nil, err
	}
	after = func() error {
		printTable(os.Stdout, played)
		if os.Getenv("CHAOS_DIR") != "" {
			return nil
		}
		return os.RemoveAll(filesDir)
	}
	if err := buildOperator(ctx); err != nil {
		return after, err
	}
	config := rest.CopyConfig(env.Config)
	config.QPS = -1
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return after, err
	}
	if admin, err = client.New(config, client.Options{Scheme: scheme}); err != nil {
		return after, err
	}
	typed, err := kubernetes.NewForConfig(config)
	if err != nil {
		return after, err
	}
	go watching.run(ctx, typed)
	// Each scenario has a list of namespaces, from which the name of its Lease follows: docs/namespaces.md has this patch.
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: testenv.OperatorNamespace, Name: "leader-election-role"}}
	anyLease := client.RawPatch(types.JSONPatchType, []byte(`[{"op":"remove","path":"/rules/0/resourceNames"}]`))
	return after, errors.Join(admin.Patch(ctx, role, anyLease), lockSecrets(ctx))
}

// buildOperator builds the binary with failpoints, unless make built the one without, which soaks. With the race detector on, the operator has it too.
func buildOperator(ctx context.Context) error {
	if os.Getenv(soakTime) != "" {
		operatorBinary = filepath.Join("..", "..", "bin", "operator")
		return nil
	}
	operatorBinary = filepath.Join(filesDir, "operator")
	args := []string{"build", "-buildvcs=false", "-tags", "failpoint", "-o", operatorBinary}
	if raceEnabled {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "../../cmd/operator")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the operator: %w\n%s", err, out)
	}
	return nil
}

// lockSecrets makes an admission policy that refuses changes of Secrets with the label locked.
func lockSecrets(ctx context.Context) error {
	policy := &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "locked"},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{
				RuleWithOperations: admissionv1.RuleWithOperations{
					Operations: []admissionv1.OperationType{admissionv1.Update},
					Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"secrets"}},
				},
			}}},
			Validations: []admissionv1.Validation{{
				Expression: "!has(oldObject.metadata.labels) || !('locked' in oldObject.metadata.labels)", Message: "this Secret is locked",
			}},
		},
	}
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: policy.Name},
		Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: policy.Name, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
		},
	}
	return errors.Join(admin.Create(ctx, policy), admin.Create(ctx, binding))
}

// seed is SEED, or 1: a run can be repeated.
func seed(t *testing.T) uint64 {
	t.Helper()
	value := os.Getenv("SEED")
	if value == "" {
		return 1
	}
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil {
		t.Fatalf("SEED: %v", err)
	}
	return n
}
