// SPDX-License-Identifier: Apache-2.0

// Package chart tests the Helm chart with the real helm on a real API server. Where a cluster has kubelets, the tests
// start the operator's binary with what the Deployment says.
package chart

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
)

const (
	chartDir = "../../charts/wechat-token-operator"
	image    = "ghcr.io/wechat-token-operator/wechat-token-operator"
	version  = "v0.1.0"
)

// shared is the control plane of the tests that need none of their own; its CRD is installed.
var shared *cluster

// images are the operator's binaries, by the image that holds them.
var images map[string]string

func TestMain(m *testing.M) {
	testenv.Main(m, setUp, testenv.Bare("../../config/crd/bases"))
}

func setUp(ctx context.Context, env *testenv.Environment) (after func() error, err error) {
	if os.Getenv("HELM") == "" {
		return nil, errors.New("HELM is not set: run make chart-test, or set it to the helm that hack/tools/build.sh helm prints")
	}
	// Every user may read it, because the operator runs as another one.
	dir, err := os.MkdirTemp("", "wechat-token-operator-chart-")
	if err != nil {
		return nil, err
	}
	after = func() error { return os.RemoveAll(dir) }
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // see above
		return after, err
	}
	images = map[string]string{}
	if err := buildImage(ctx, "../..", dir, version); err != nil {
		return after, err
	}
	if err := track(chartDir, "../../config"); err != nil {
		return after, err
	}
	shared, err = newCluster(env, dir)
	return after, err
}

// buildImage builds the operator of a source tree into dir. With -trimpath Go's build cache serves trees anywhere.
func buildImage(ctx context.Context, tree, dir, version string) error {
	binary := filepath.Join(dir, "operator-"+version)
	build := exec.CommandContext(ctx, "go", "-C", tree, //nolint:gosec // our own
		"build", "-trimpath", "-buildvcs=false", "-ldflags", "-X main.version="+version, "-o", binary, "./cmd/operator")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building the operator: %w: %s", err, out)
	}
	images[image+":"+version] = binary
	return nil
}

// track reads what helm and make read, so that Go's cache of test results knows that the tests depend on it.
func track(dirs ...string) error {
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			_, err = os.Stat(path)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
