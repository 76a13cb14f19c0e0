#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds the plugin's archives and its Krew manifest into dist/krew:
#   hack/krew/dist.sh v0.1.0
# PLATFORMS chooses (default below), BASE_URL is where the archives will be downloaded from.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
version=${1:?usage: hack/krew/dist.sh v0.1.0}
if [[ ! $version =~ ^v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$ ]]; then
	echo "$version is no version that Krew takes: write it like v0.1.0" >&2
	exit 2
fi
platforms=${PLATFORMS:-linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64}
base_url=${BASE_URL:-https://github.com/wechat-token-operator/wechat-token-operator/releases/download/$version}
out=dist/krew
rm -rf "$out"
mkdir -p "$out"
manifest=$out/wxtoken.yaml
sed -e '/^#/d' -e "s/VERSION/$version/" hack/krew/wxtoken.yaml >"$manifest"

sum() { if command -v sha256sum >/dev/null; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d' ' -f1; }

for platform in $platforms; do
	os=${platform%/*} arch=${platform#*/} bin=kubectl-wxtoken
	[[ $os == windows ]] && bin+=.exe
	stage=$(mktemp -d)
	GOOS=$os GOARCH=$arch CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$version" \
		-o "$stage/$bin" ./cmd/kubectl-wxtoken
	cp LICENSE "$stage/"
	cp cmd/kubectl-wxtoken/kubectl_complete-wxtoken "$stage/"
	archive=kubectl-wxtoken_${os}_$arch.tar.gz
	tar -czf "$out/$archive" -C "$stage" .
	rm -rf "$stage"
	cat >>"$manifest" <<-YAML
	  - selector:
	      matchLabels:
	        os: $os
	        arch: $arch
	    uri: $base_url/$archive
	    sha256: $(sum "$out/$archive")
	    bin: $bin
	YAML
	echo "$out/$archive"
done
echo "$manifest"
