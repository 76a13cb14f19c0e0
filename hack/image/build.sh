#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds images without a container engine and writes them as OCI archives, for PLATFORMS:
#   hack/image/build.sh dist/images operator qrcode
# The operator's is what the Dockerfile makes, but for the base: see README.md.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${1:?usage: build.sh FOLDER NAME...}
shift
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$here/../.."

read -ra platforms <<<"${PLATFORMS:-linux/amd64 linux/arm64}"
version=${VERSION:-dev}
tag=${TAG:-dev}
image=$(hack/tools/build.sh image)

for name in "$@"; do
	ref=$name:$tag
	case $name in
	# Both programs are in one image: see the Dockerfile.
	operator) packages="./cmd/operator ./cmd/gateway" ref=wechat-token-operator:$tag ;;
	fake-wechat) packages=./hack/fake-wechat ;;
	qrcode | h5 | show-token) packages=./examples/$name ;;
	token-user) packages=./test/e2e/token-user ;;
	pause) packages=./hack/cluster/pause ;;
	coredns) packages= ;;
	*)
		echo "unknown image: $name" >&2
		exit 2
		;;
	esac
	binaries=()
	for platform in "${platforms[@]}"; do
		folder=$out/bin/${platform//\//-}
		mkdir -p "$folder"
		binary=$folder/$name
		if [[ $name == coredns ]]; then
			# Built as a tool, for this machine alone, and for the cluster on it.
			[[ $platform == linux/$(go env GOARCH) ]] || continue
			cp "$(hack/tools/build.sh coredns)" "$binary"
		else
			# As in the Dockerfile: the same Go makes the same binaries.
			read -ra list <<<"$packages"
			env -u GOFLAGS CGO_ENABLED=0 GOOS="${platform%%/*}" GOARCH="${platform##*/}" \
				go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$version" -o "$folder/" "${list[@]}"
			for package in "${list[@]:1}"; do
				binary+=,$folder/$(basename "$package")
			done
		fi
		binaries+=("$platform=$binary")
	done
	"$image" --ref "$ref" --out "$out/$name.tar" "${binaries[@]}"
done
