#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# chart-files.sh DIR copies what the chart in DIR shares with config/ into its files/: one source for each. Helm cannot read
# outside a chart. What config/ has no more goes.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
files=${1:?usage: chart-files.sh DIR}/files

mkdir -p "$files"/{crds,rbac,admission-policy,gateway,prompt-delivery,rules,dashboards}
find "$files" -type f \( -name '*.yaml' -o -name '*.json' \) -delete
cp config/crd/bases/*.yaml "$files/crds/"
cp config/rbac/role.yaml config/rbac/wechatapp{token,client}_{viewer,editor}_role.yaml "$files/rbac/"
cp config/admission-policy/policy.yaml "$files/admission-policy/"
cp config/prompt-delivery/{role,policy}.yaml "$files/prompt-delivery/"
cp config/gateway/{role,review_role,policy}.yaml "$files/gateway/"
# The templates take the defaults of missing values from here.
cp "$(dirname "$files")/values.yaml" "$files/values.yaml"
# The rules and dashboards are optional: the templates include what is there.
for rules in config/prometheus/*rule*.yaml; do
	if [[ -f $rules ]]; then cp "$rules" "$files/rules/"; fi
done
for dashboard in config/grafana/*.json; do
	if [[ -f $dashboard ]]; then cp "$dashboard" "$files/dashboards/"; fi
done
