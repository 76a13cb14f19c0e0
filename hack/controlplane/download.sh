#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Functions to take etcd, kube-apiserver and kubectl from an archive of setup-envtest instead of building them. Source this file after
# hack/build-cached.sh.

# What an archive has.
downloadable=(etcd kube-apiserver kubectl)

# say prints a line about the control plane for the person who waits.
say() {
	echo "==> control plane: $*" >&2
}

# missing_download FOLDER NAME... reports whether a download would have one of the binaries and the folder has not.
missing_download() {
	local folder=$1 name
	shift
	for name; do
		[[ " ${downloadable[*]} " != *" $name "* || -x $folder/$name ]] || return 0
	done
	return 1
}

# download_mirror prints the URL below which the archives are, or off.
download_mirror() {
	case ${WECHAT_TOKEN_OPERATOR_DOWNLOAD:-on} in
	on) echo https://github.com/kubernetes-sigs/controller-tools/releases/download ;;
	off) echo off ;;
	http://* | https://*) echo "${WECHAT_TOKEN_OPERATOR_DOWNLOAD%/}" ;;
	*)
		echo "WECHAT_TOKEN_OPERATOR_DOWNLOAD must be on, off or the URL of a mirror" >&2
		return 2
		;;
	esac
}

# sha512 prints the SHA-512 of a file.
sha512() {
	if command -v sha512sum >/dev/null; then sha512sum <"$1"; else shasum -a 512 <"$1"; fi | cut -d' ' -f1
}

# download_assets SUMS VERSION MIRROR downloads the archive for this machine whose checksum the file SUMS has, if it is of the minor
# version of VERSION, and prints the folder with its binaries. If there is none, it says why in one line and fails. A folder from an
# earlier run serves without the network.
download_assets() (
	sums=$1 version=$2 mirror=$3
	give_up() {
		say "not downloaded, because $*"
		exit 1
	}

	[[ $mirror != off ]] || give_up "WECHAT_TOKEN_OPERATOR_DOWNLOAD is off"
	platform=$(go env GOHOSTOS)-$(go env GOHOSTARCH)
	read -r sum archive < <(awk -v end="-$platform.tar.gz" '$1 !~ /^#/ && $2 ~ end "$"' "$sums") || true
	[[ -n $archive ]] || give_up "no checksum is pinned for $platform"
	release=${archive%"-$platform.tar.gz"} # envtest-v1.X.Y
	[[ ${release#envtest-} == "${version%.*}".* ]] || give_up "the pinned archive is ${release#envtest-}, and not of ${version%.*}"
	folder=$(cache_root)/controlplane/$release-${sum:0:12}
	if ! missing_download "$folder" "${downloadable[@]}"; then
		printf '%s\n' "$folder"
		exit 0
	fi
	command -v curl >/dev/null || give_up "curl is not installed"

	url=$mirror/$release/$archive
	# A mirror's URL may have a password in it.
	shown=$(sed -E 's#//[^/@]*@#//#' <<<"$url")
	say "looking for $shown, for at most 5 s"
	headers=$(curl -sSfIL --max-time 5 "$url" 2>&1) || give_up "it cannot be reached: $(grep '^curl:' <<<"$headers")"
	# Each redirect has headers of its own before those that count.
	header() {
		tr -d '\r' <<<"$headers" | awk -F': *' -v name="$1" '/^HTTP\// {value = ""} tolower($1) == name {value = $2} END {print value}'
	}
	[[ $(header content-type) != text/html* ]] || give_up "a web page answers there; does this network ask for a login?"
	size=$(header content-length)
	[[ $size =~ ^[1-9][0-9]{0,8}$ ]] || give_up "it does not say how large it is"
	say "downloading ${downloadable[*]} ${release#envtest-}, $((size / 1000000)) MB: at most 3 minutes, once"

	mkdir -p "$folder" || give_up "its folder cannot be made"
	tmp=$(mktemp -d "$folder/.download.XXXXXX") || give_up "its folder cannot be written to"
	trap 'rm -rf "$tmp"' EXIT
	start=$SECONDS
	# Given up early if it would not be done in time.
	problem=$(curl -sSfL --connect-timeout 5 --max-time 180 --speed-time 10 --speed-limit $((size / 180 + 1)) -o "$tmp/archive" "$url" 2>&1) ||
		give_up "the download broke off: ${problem:-curl says nothing}"
	[[ $(head -c 2 "$tmp/archive" | od -An -tx1 | tr -d ' ') == 1f8b ]] ||
		give_up "what came is not an archive; does this network ask for a login?"
	got=$(sha512 "$tmp/archive") || give_up "its checksum cannot be computed"
	if [[ $got != "$sum" ]]; then
		cat >&2 <<-WARNING
			WARNING: $shown
			WARNING: has the SHA-512 $got
			WARNING: and not $sum, which hack/controlplane/envtest.sha512 pins.
			WARNING: Somebody may have changed it. It is deleted, and nothing of it was unpacked or run. Please report this.
		WARNING
		give_up "its checksum is wrong"
	fi
	# Only what was checked is unpacked. A binary appears whole or not at all, so runs at the same time do no harm.
	problem=$(tar -xzf "$tmp/archive" -C "$tmp" 2>&1) || give_up "it cannot be unpacked: $(tail -n 1 <<<"$problem")"
	for name in "${downloadable[@]}"; do
		mv "$tmp/controller-tools/envtest/$name" "$folder/$name" || give_up "it lacks $name"
	done
	say "downloaded to $folder in $((SECONDS - start)) s"
	printf '%s\n' "$folder"
)
