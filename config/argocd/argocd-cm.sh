#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Prints the health check and the actions as a patch of the ConfigMap argocd-cm:
#   config/argocd/argocd-cm.sh | kubectl -n argocd patch configmap argocd-cm --type merge --patch-file /dev/stdin
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/resource_customizations/wechat.apptoken.dev/WeChatAppToken"
key=wechat.apptoken.dev_WeChatAppToken

# indented N FILE prints a file as the body of a YAML block.
indented() { sed "s/^./$(printf '%*s' "$1" '')&/" "$2"; }

printf 'data:\n  resource.customizations.health.%s: |\n' "$key"
indented 4 health.lua
printf '  resource.customizations.actions.%s: |\n    discovery.lua: |\n' "$key"
indented 6 actions/discovery.lua
printf '    definitions:\n'
for action in refresh revoke suspend resume; do
	printf '    - name: %s\n      action.lua: |\n' "$action"
	indented 8 "actions/$action/action.lua"
done
