// Tests of config/argocd with the Lua interpreter that Argo CD uses. A module of its own, so that none of it reaches the
// operator's go.mod.
module github.com/wechat-token-operator/wechat-token-operator/test/argocd

go 1.26.0

require (
	github.com/yuin/gopher-lua v1.1.2
	sigs.k8s.io/yaml v1.6.0
)

require go.yaml.in/yaml/v2 v2.4.2 // indirect
