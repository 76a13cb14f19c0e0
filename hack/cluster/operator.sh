#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Installs the operator with the stand-in for WeChat on the cluster of KUBECONFIG, from images that are loaded there. It never takes the
# kubeconfig in the home directory: a stand-in for WeChat must not get into a cluster that somebody uses.
set -euo pipefail
: "${KUBECONFIG:?must name the cluster; make cluster-operator sets it}"
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

kubectl=${KUBECTL:-kubectl}
"$kubectl" apply --server-side -f test/e2e/manifests/fake-wechat.yaml
"$kubectl" -n wechat rollout status deployment/fake-wechat --timeout=3m
ca=$(mktemp)
trap 'rm -f "$ca"' EXIT
# The stand-in prints one line of JSON when it is ready.
printf '%b' "$("$kubectl" -n wechat logs deployment/fake-wechat | sed -n 's/.*"ca":"\([^"]*\)".*/\1/p')" >"$ca"
[[ -s $ca ]] || {
	echo "the stand-in does not say its certificate authority" >&2
	exit 1
}
"$(hack/tools/build.sh helm)" upgrade --install wechat-token-operator charts/wechat-token-operator \
	--namespace wechat-token-operator-system --create-namespace --wait --timeout 3m \
	--set image.repository=wechat-token-operator --set image.tag=dev \
	--set 'wechat.endpoints={https://fake-wechat.wechat.svc}' --set-file "wechat.caBundle.inline=$ca"
