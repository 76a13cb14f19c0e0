#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Starts programs of an image for arm64, each in a container, on a machine of another kind, as root:
#   hack/image/start.sh dist/images/operator.tar "/operator --version" "/gateway --version"
# It runs a containerd of its own and, unless there is one already, registers qemu-user with the kernel for as long as it runs. Debian has
# both in the packages containerd, runc and qemu-user-static.
set -euo pipefail

archive=${1:?usage: start.sh ARCHIVE COMMAND...}
shift
platform=linux/arm64
binfmt=/proc/sys/fs/binfmt_misc

folder=$(mktemp -d)
containerd=
registered=
end() {
	if [[ -n $containerd ]]; then
		kill "$containerd"
		wait "$containerd" || true
	fi
	[[ -z $registered ]] || echo -1 >"$registered"
	rm -rf "$folder"
}
trap end EXIT

[[ -e $binfmt/register ]] || mount -t binfmt_misc binfmt_misc "$binfmt"
if [[ ! -e $binfmt/qemu-aarch64 ]]; then
	cat /usr/lib/binfmt.d/qemu-aarch64.conf >"$binfmt/register"
	registered=$binfmt/qemu-aarch64
fi

# Without the plugin for Kubernetes, which wants a network.
cat >"$folder/config.toml" <<END
version = 2
root = "$folder/root"
state = "$folder/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "$folder/socket"
[plugins."io.containerd.internal.v1.opt"]
path = "$folder/opt"
END
containerd --config "$folder/config.toml" --log-level error 2>"$folder/log" &
containerd=$!
ctr=(ctr --address "$folder/socket")
for _ in {1..50}; do
	! "${ctr[@]}" version >/dev/null 2>&1 || break
	sleep 0.2
done

"${ctr[@]}" images import --platform "$platform" "$archive" >/dev/null
image=$("${ctr[@]}" images ls -q)
for command in "$@"; do
	read -ra words <<<"$command"
	echo "$image on $platform: $command"
	"${ctr[@]}" run --rm --platform "$platform" "$image" "${words[0]#/}" "${words[@]}"
done
