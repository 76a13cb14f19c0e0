#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# argocd-cm.sh [patch|values|operator] prints the health checks and the actions for an Argo CD:
#   patch     a patch of the ConfigMap argocd-cm, the default:
#               config/argocd/argocd-cm.sh | kubectl -n argocd patch configmap argocd-cm --type merge --patch-file /dev/stdin
#   values    values for Argo CD's own Helm chart, argo-cd, which writes that ConfigMap
#   operator  a part of the ArgoCD resource of the argocd-operator, which writes that ConfigMap; add it to the lists that are there
set -euo pipefail

group=wechat.apptoken.dev
cd "$(dirname "${BASH_SOURCE[0]}")/resource_customizations/$group"
kinds=(WeChatAppToken WeChatAppClient)

# indented N prints its input as the body of a YAML block.
indented() { sed "s/^./$(printf '%*s' "$1" '')&/"; }

# actions prints those of a WeChatAppToken, the only kind that has any.
actions() {
	printf 'discovery.lua: |\n'
	indented 2 <WeChatAppToken/actions/discovery.lua
	printf 'definitions:\n'
	for action in check refresh revoke suspend resume; do
		printf -- '- name: %s\n  action.lua: |\n' "$action"
		indented 4 <"WeChatAppToken/actions/$action/action.lua"
	done
}

# config_map N prints the keys of argocd-cm.
config_map() {
	{
		for kind in "${kinds[@]}"; do
			printf 'resource.customizations.health.%s_%s: |\n' "$group" "$kind"
			indented 2 <"$kind/health.lua"
		done
		printf 'resource.customizations.actions.%s_WeChatAppToken: |\n' "$group"
		actions | indented 2
	} | indented "$1"
}

case ${1:-patch} in
patch)
	printf 'data:\n'
	config_map 2
	;;
values)
	printf 'configs:\n  cm:\n'
	config_map 4
	;;
operator)
	printf 'spec:\n  resourceHealthChecks:\n'
	for kind in "${kinds[@]}"; do
		printf '  - group: %s\n    kind: %s\n    check: |\n' "$group" "$kind"
		indented 6 <"$kind/health.lua"
	done
	printf '  resourceActions:\n  - group: %s\n    kind: WeChatAppToken\n    action: |\n' "$group"
	actions | indented 6
	;;
*)
	echo "usage: argocd-cm.sh [patch|values|operator]" >&2
	exit 2
	;;
esac
