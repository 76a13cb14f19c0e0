#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs examples/qrcode with the stand-in for WeChat on the cluster of KUBECONFIG, where operator.sh was run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
: "${KUBECONFIG:?must name the cluster; make cluster-qrcode sets it}"

kubectl=${KUBECTL:-kubectl}
"$kubectl" -n shop get secret shop-wechat >/dev/null || {
	echo "store an AppSecret first: make cluster-operator says how" >&2
	exit 1
}
# The operator trusts the stand-in by the same certificate authority.
ca=$("$kubectl" -n wechat-token-operator-system get configmap wechat-token-operator-wechat-ca -o jsonpath='{.data.ca\.crt}')
"$kubectl" -n shop create configmap wechat-ca --from-literal=ca.crt="$ca" --dry-run=client -o yaml | "$kubectl" apply -f -
"$kubectl" apply -f examples/qrcode/manifests
"$kubectl" -n shop patch deployment qrcode --patch-file hack/cluster/qrcode.yaml
"$kubectl" -n shop wait --for=condition=Ready wxtoken/shop --timeout=60s
"$kubectl" -n shop rollout status deployment/qrcode --timeout=3m
echo "look at the code at http://127.0.0.1:8080 while this runs:"
echo "  kubectl -n shop port-forward service/qrcode 8080:80"
