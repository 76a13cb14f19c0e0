#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs test/e2e: on a cluster that is made for it and removed, or on that of E2E_KUBECONFIG, see README.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

images=$PWD/dist/images/e2e
export PLATFORMS=${PLATFORMS:-linux/$(go env GOARCH)}
TAG=dev VERSION=e2e hack/image/build.sh "$images" operator fake-wechat qrcode h5 show-token token-user
TAG=next VERSION=e2e-next hack/image/build.sh "$images/next" operator

if [[ -n ${E2E_KUBECONFIG:-} ]]; then
	export KUBECONFIG=$E2E_KUBECONFIG
	read -ra load <<<"${E2E_LOAD:?must say how to load image archives into the cluster}"
else
	TAG=cluster hack/image/build.sh "$images/cluster" pause coredns
	CLUSTER=$PWD/bin/cluster CLUSTER_IMAGES=$images/cluster go test -count=1 -run '^TestLeavesNothingBehind$' ./hack/cluster
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
	export E2E_RESTART_KUBELET="${cluster[*]} restart kubelet" E2E_NODE_EXEC="${cluster[*]} exec"
	load=("${cluster[@]}" load)
fi
for archive in "$images"/{operator,fake-wechat,qrcode,h5,show-token,token-user}.tar "$images/next/operator.tar"; do
	"${load[@]}" "$archive"
done
export E2E=1 WXTOKEN=$PWD/bin/kubectl-wxtoken
go test -count=1 -timeout 25m -v -run '^(TestE2E|TestReadme)$' ./test/e2e
