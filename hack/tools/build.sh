#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds one pinned tool if it is missing and prints its path:
#   "$(hack/tools/build.sh controller-gen)" --help
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/build-cached.sh
source "$here/../build-cached.sh"

tool=${1:?usage: build.sh TOOL, one of those below}
module=$here/$tool tags="" ldflags="" program=$tool
case $tool in
controller-gen) package=sigs.k8s.io/controller-tools/cmd/controller-gen note='(once)' ;;
kustomize) package=sigs.k8s.io/kustomize/kustomize/v5 note='(once)' ;;
crd-ref-docs) package=github.com/elastic/crd-ref-docs note='(once)' ;;
actionlint) package=github.com/rhysd/actionlint/cmd/actionlint note='(once)' ;;
govulncheck) package=golang.org/x/vuln/cmd/govulncheck note='(once)' ;;
caddy) package=github.com/caddyserver/caddy/v2/cmd/caddy note='(once; some minutes)' ;;
coredns) package=. note='(once; some minutes)' ;;
image) module=$here/../image package=. note='(once)' ;;
benchplot) package=. note='(once)' ;;
golangci-lint) package=. note='(once; some minutes)' ;;
helm) package=helm.sh/helm/v4/cmd/helm note='(once; some minutes)' ;;
helm3)
	# Helm's releases are built with the version of Kubernetes that "helm template" renders for.
	minor=$(awk '$1 == "k8s.io/client-go" {split($2, v, "."); print v[2]}' "$module/go.mod")
	version=helm.sh/helm/v3/pkg/chartutil.k8sVersion
	package=helm.sh/helm/v3/cmd/helm program=helm note='(once; some minutes)'
	ldflags="-X ${version}Major=1 -X ${version}Minor=$minor -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor=1 \
		-X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor=$minor"
	;;
helm-unittest) package=github.com/helm-unittest/helm-unittest/cmd/helm-unittest note='(once; some minutes)' ;;
prometheus | promtool)
	# Both come from one module. What Prometheus can discover in clouds is not needed here and most of its size.
	module=$here/prometheus package=github.com/prometheus/prometheus/cmd/$tool tags=remove_all_sd note='(once; some minutes)'
	;;
kustomize-controller | source-controller)
	# Both come from one module, because most of what they need is the same.
	module=$here/flux package=github.com/fluxcd/$tool note='(once; about 5 minutes on 2 cores)'
	;;
*)
	echo "unknown tool: $tool" >&2
	exit 2
	;;
esac

# Go's version counts too: a linter built with an older Go cannot read what a newer one compiles.
key=$({ go -C "$module" env GOVERSION; find "$module" -name '*.go' -exec cat {} +; cat "$module/go.sum"; } | hash12)
out=$(cache_root)/tools/$tool-$key/$program
build_cached "$module" "$package" "$out" "$ldflags" "$note" "$tags"
printf '%s\n' "$out"
