#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Prints what make test-integration did not check on this machine because a program is missing, and what only other commands check. With the
# argument "programs" it prints that of make test.
set -euo pipefail

# missing PROGRAM... reports whether none of the programs is there.
missing() {
	local program
	for program; do
		if [[ -n $program ]] && command -v "$program" >/dev/null; then return 1; fi
	done
}

print() {
	echo "Not checked:"
	printf -- '- %s\n' "${list[@]}"
}

list=()
if [[ ${1:-} == programs ]]; then
	if missing shellcheck; then list+=("shell scripts: shellcheck is not installed"); fi
	if [[ $(go env CGO_ENABLED) != 1 ]]; then list+=("data races: the race detector needs cgo, and cgo a C compiler"); fi
	list+=("what is around the programs: the chart on an API server, GitOps, SDKs, images, documents, examples (make test-integration)")
	print
	exit
fi
if missing java || missing javac; then list+=("the reader in Java, examples/readers/java: java and javac are not installed"); fi
if missing python3; then list+=("the reader in Python, examples/readers/python: python3 is not installed"); fi
if missing node; then list+=("the reader in Node.js, examples/readers/node: node is not installed"); fi
list+=("the reader in .NET, examples/readers/dotnet: nothing runs it")
if missing "${CHROMIUM:-}" chromium chromium-browser google-chrome; then
	list+=("pages in a browser, test/h5: Chromium is not installed, and CHROMIUM does not name it")
fi
if missing curl; then list+=("the download of the control plane, test/firstrun: curl is not installed"); fi
list+=("Flux's controllers, Argo CD's code and the oldest Kubernetes (make test-more), a real node (make e2e), \
long attacks (make chaos chaos-gateway), known vulnerabilities (make govulncheck)")
print
