#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Packs the chart with the image that a release built, by its digest, into dist/chart, and prints the archive's path:
#   hack/release/chart.sh v0.1.0 ghcr.io/wechat-token-operator/wechat-token-operator sha256:…
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
usage='usage: hack/release/chart.sh v0.1.0 REPOSITORY sha256:DIGEST'
version=${1:?$usage} repository=${2:?$usage} digest=${3:?$usage}
if [[ ! $version =~ ^v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$ || ! $digest =~ ^sha256:[0-9a-f]{64}$ ]]; then
	echo "$usage" >&2
	exit 2
fi
helm=$(hack/tools/build.sh helm)
out=dist/chart
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
cp -r charts/wechat-token-operator "$stage/"
chart=$stage/wechat-token-operator

# The defaults are in two files: values.yaml, and its copy for the templates.
for values in "$chart/values.yaml" "$chart/files/values.yaml"; do
	sed -e "/^image:/,/^[a-z]/{s|^  repository: .*|  repository: $repository|;s|^  digest: .*|  digest: $digest|}" "$values" >"$stage/values"
	mv "$stage/values" "$values"
done
rm -rf "$out"
mkdir -p "$out"
"$helm" package "$chart" --version "${version#v}" --app-version "$version" --destination "$out" >/dev/null
echo "$out/wechat-token-operator-${version#v}.tgz"
