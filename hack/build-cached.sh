#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Functions to build pinned binaries from the Go module proxy once per machine. Source this file.

# cache_root prints the folder that outlives a clone.
cache_root() {
	local base
	case "$(uname -s)" in
	Darwin) base="${HOME:-/tmp}/Library/Caches" ;;
	*) base="${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}" ;;
	esac
	printf '%s/wechat-token-operator\n' "${WECHAT_TOKEN_OPERATOR_CACHE:-$base}"
}

# hash12 prints the first 12 hex digits of the SHA-256 of its standard input.
hash12() {
	if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi | cut -c1-12
}

# build_cached MODULE PACKAGE OUT LDFLAGS NOTE [TAGS] builds PACKAGE as pinned by MODULE's go.sum into OUT, unless it is there.
build_cached() {
	local module=$1 package=$2 out=$3 ldflags=$4 note=$5 tags=${6:-}
	[[ -x $out ]] && return 0
	local dir name
	dir=$(dirname "$out") name=$(basename "$out")
	mkdir -p "$dir"
	(
		# Two builds of one binary at once would only waste the machine: the second waits. Without flock (macOS) both
		# build, which the rename makes harmless.
		if command -v flock >/dev/null; then
			exec 9>"$dir/.$name.lock"
			flock 9
			[[ -x $out ]] && exit 0
		fi
		tmp=$(mktemp "$dir/.$name.XXXXXX")
		trap 'rm -f "$tmp"' EXIT
		echo "==> building $name${note:+ $note}" >&2
		start=$SECONDS
		# The caller's cross-compilation and module settings are not for tools that run here.
		env -u GOOS -u GOARCH -u GOFLAGS GOWORK=off CGO_ENABLED=0 \
			go -C "$module" build -mod=readonly -buildvcs=false -trimpath -tags "$tags" -ldflags "-s -w $ldflags" -o "$tmp" "$package" >&2
		chmod 0755 "$tmp"
		mv "$tmp" "$out"
		echo "==> built $out in $((SECONDS - start)) s" >&2
	)
}
