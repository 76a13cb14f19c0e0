#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Prints for each Chinese page whether it follows the English page as it is now and, if not, what changed in that since.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The first 16 hex digits of the SHA-256 of the input.
digest() { if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi | cut -c 1-16; }

for page in README.zh-CN.md docs/zh/*.md docs/images/zh/*.svg; do
	[[ -e $page ]] || continue
	read -r _ _ english hash _ <"$page"
	hash=${hash#sha256:}
	if [[ ! -f $english ]]; then
		echo "$page: its first line names no page that exists"
		continue
	fi
	now=$(digest <"$english")
	# Only its readers see which sections are outdated; the page itself may be current.
	outdated=$(grep -c '<!-- outdated -->' "$page" || true)
	marked=""
	[[ $outdated == 0 ]] || marked=", with $outdated sections marked as outdated"
	if [[ $hash == "$now" ]]; then
		echo "$page: current$marked"
		continue
	fi
	echo "$page: $english has changed$marked. Once the page has these changes, begin it with:"
	echo "<!-- follows $english sha256:$now -->"
	then=""
	for commit in $(git log --full-history --format=%H -- "$english"); do
		if [[ $(git show "$commit:$english" 2>/dev/null | digest) == "$hash" ]]; then
			then=$commit
			break
		fi
	done
	if [[ -n $then ]]; then
		git --no-pager diff "$then" -- "$english"
	else
		echo "No commit of this clone has the $english that it follows; see git log -p $english"
	fi
done
