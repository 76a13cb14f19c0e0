#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Checks that generated files, module files and formatting are up to date. It generates in a copy, so that it works in a
# tree with uncommitted work and changes nothing.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
failed=0

fail() {
	echo "verify: $*" >&2
	failed=1
}

tar --exclude=./.git --exclude=./bin --exclude=./dist --exclude=node_modules -cf - . | tar -xf - -C "$copy"
# Deleted first, so that a generated file that is no longer written is found too.
rm -rf "$copy"/api/v1alpha1/applyconfiguration "$copy"/api/v1alpha1/zz_generated.*.go "$copy"/config/crd/bases
rm -f "$copy/config/rbac/role.yaml" "$copy/docs/api.md"
make -s -C "$copy" generate manifests api-docs
for path in api config/crd config/rbac docs/api.md; do
	diff -ru "$path" "$copy/$path" || fail "$path differs from what its sources say: run make generate manifests api-docs"
done

cp -r charts/wechat-token-operator "$copy/chart"
make -s -C "$copy" chart CHART=chart
diff -ru charts/wechat-token-operator "$copy/chart" || fail "the chart differs from config/ or its README from its values: run make chart"

unformatted=$(gofmt -l .)
[[ -z $unformatted ]] || fail "not formatted, run make fmt: $unformatted"

while IFS= read -r module; do
	GOWORK=off go -C "$module" mod tidy -diff || fail "$module/go.mod or go.sum is not tidy: run go mod tidy there"
# Tidying the module of Prometheus would load the SDK of every cloud that it can discover; its build checks go.sum. Those of the oldest
# Kubernetes, of Flux's controllers and of Argo CD's library are tidied by what make test-more runs.
done < <(find . -name go.mod -not -path './hack/tools/prometheus/*' -not -path './hack/tools/flux/*' -not -path './hack/controlplane/oldest/*' \
	-not -path './test/argocd/library/*' \
	-not -path '*/testdata/*' -exec dirname {} \; | sort)

# What a user applies must at least build.
kustomize=$(hack/tools/build.sh kustomize)
for dir in config/default config/samples config/prometheus config/gateway-monitor config/grafana config/network-policy \
	config/network-policy-egress config/gateway-network-policy-egress config/admission-policy; do
	"$kustomize" build "$dir" >/dev/null || fail "$dir does not build"
done
# Components change what is in config/default, so they are built in an overlay of it.
mkdir "$copy/config/verify-components"
printf 'resources: [../default]\ncomponents: [../gateway, ../metrics-certificate, ../prompt-delivery]\n' \
	>"$copy/config/verify-components/kustomization.yaml"
"$kustomize" build "$copy/config/verify-components" >/dev/null || fail "the components of config do not build in an overlay of config/default"

exit "$failed"
