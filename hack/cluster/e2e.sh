#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs test/e2e: on a cluster that is made for it and removed, or on that of E2E_KUBECONFIG, to which E2E_LOAD loads archives:
#   E2E_KUBECONFIG=~/.kube/config E2E_LOAD="kind load image-archive" E2E_RESTART_KUBELET="docker exec kind-control-plane systemctl restart kubelet" make e2e
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

images=$PWD/dist/images/e2e
export PLATFORMS=${PLATFORMS:-linux/$(go env GOARCH)}
TAG=dev VERSION=e2e hack/image/build.sh "$images" operator fake-wechat qrcode token-user
TAG=next VERSION=e2e-next hack/image/build.sh "$images/next" operator

if [[ -n ${E2E_KUBECONFIG:-} ]]; then
	export KUBECONFIG=$E2E_KUBECONFIG
	read -ra load <<<"${E2E_LOAD:?must say how to load image archives into the cluster}"
else
	TAG=cluster hack/image/build.sh "$images/cluster" pause coredns
	dir=$(mktemp -d)
	cluster=("$PWD/bin/cluster" --dir "$dir/cluster" --assets "$KUBEBUILDER_ASSETS")
	end() {
		local code=$?
		if [[ $code -ne 0 && -d $dir/cluster/logs ]]; then
			mkdir -p dist/e2e
			cp -r "$dir/cluster/logs" dist/e2e/
			echo "the logs of the cluster are in dist/e2e/logs" >&2
		fi
		"${cluster[@]}" down
		rm -rf "$dir"
	}
	trap end EXIT
	"${cluster[@]}" --images "$images/cluster" up
	export KUBECONFIG=$dir/cluster/pki/admin.kubeconfig
	export E2E_RESTART_KUBELET="${cluster[*]} restart kubelet"
	load=("${cluster[@]}" load)
fi
for archive in "$images"/{operator,fake-wechat,qrcode,token-user}.tar "$images/next/operator.tar"; do
	"${load[@]}" "$archive"
done
E2E=1 WXTOKEN=$PWD/bin/kubectl-wxtoken go test -count=1 -timeout 25m -v -run '^TestE2E$' ./test/e2e
