#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Downloads or builds the named control plane binaries if they are missing and prints the folder they are in:
#   KUBEBUILDER_ASSETS=$(hack/controlplane/build.sh etcd kube-apiserver kubectl)
# With --oldest they are those of the oldest Kubernetes that the chart admits.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/build-cached.sh
source "$here/../build-cached.sh"
# shellcheck source=hack/controlplane/download.sh
source "$here/download.sh"

module=$here
if [[ ${1:-} == --oldest ]]; then
	module=$here/oldest
	shift
fi
names=("$@")
if [[ ${#names[@]} -eq 0 ]]; then
	names=(etcd kube-apiserver kubectl)
elif [[ ${names[0]} == all ]]; then
	names=(etcd kube-apiserver kubectl kube-controller-manager kube-scheduler kube-proxy kubelet)
fi

# Binaries of one's own, for example from setup-envtest, always win. They say nothing about the oldest version.
if [[ -n ${KUBEBUILDER_ASSETS:-} && $module == "$here" ]]; then
	for name in "${names[@]}"; do
		[[ -x $KUBEBUILDER_ASSETS/$name ]] || echo "warning: KUBEBUILDER_ASSETS=$KUBEBUILDER_ASSETS has no $name" >&2
	done
	# Absolute, because each Go test runs in the folder of its package.
	(cd "$KUBEBUILDER_ASSETS" && pwd)
	exit 0
fi

version=$(awk '$1 == "k8s.io/kubernetes" {print $2; exit}' "$module/go.mod")
IFS=. read -r major minor _ <<<"${version#v}"
dir=$(cache_root)/controlplane/$version-$(hash12 <"$module/go.sum")

# What an archive has is downloaded, unless it is there. A node, which needs all, is built from source and so of one version.
assets=$dir
if [[ $module == "$here" && ${1:-} != all ]] && missing_download "$dir" "${names[@]}"; then
	mirror=$(download_mirror)
	assets=$(download_assets "$here/envtest.sha512" "$version" "$mirror") || {
		assets=$dir
		say "building what is missing from source: about 10 minutes on 2 cores, once"
	}
fi

# Without the stamp the API server calls itself v0.0.0 and clients that ask for its version refuse it.
ldflags=
for pkg in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
	ldflags+=" -X $pkg.gitVersion=$version -X $pkg.gitMajor=$major -X $pkg.gitMinor=$minor -X $pkg.gitTreeState=clean"
done

for name in "${names[@]}"; do
	case $name in
	etcd) package=go.etcd.io/etcd/server/v3 note='(once)' ;;
	kube-apiserver) package=k8s.io/kubernetes/cmd/kube-apiserver note="$version (once; about 5 minutes on 2 cores)" ;;
	kubectl | kube-controller-manager | kube-scheduler | kube-proxy | kubelet)
		package=k8s.io/kubernetes/cmd/$name note="$version (once; some minutes)"
		;;
	*)
		echo "unknown binary: $name" >&2
		exit 2
		;;
	esac
	[[ -x $assets/$name ]] && continue
	build_cached "$module" "$package" "$dir/$name" "$ldflags" "$note"
	# Everything is looked for in one folder.
	[[ $assets == "$dir" ]] || ln -sf "$dir/$name" "$assets/$name"
done
printf '%s\n' "$assets"
