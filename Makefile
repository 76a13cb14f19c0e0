# SPDX-License-Identifier: Apache-2.0

# The image that is built, pushed and deployed, for example registry.example.com/wechat-token-operator:v0.1.0
IMG ?= wechat-token-operator:dev
# docker, or what takes the same arguments, such as podman.
CONTAINER_TOOL ?= docker
# One platform, or several for a registry: linux/amd64,linux/arm64. Empty means this machine's.
PLATFORM ?=
# Not empty: the deployed operator tells pods of new tokens, see docs/prompt-delivery.md.
PROMPT_DELIVERY ?=
KUBECTL ?= kubectl
GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
# How long each fuzz target runs.
FUZZTIME ?= 30s
# How long the scenarios of make chaos and make chaos-gateway attack, from which seed, and which of them (names with commas; empty for all).
CHAOS_TIME ?= 12m
SEED ?= 1
SCENARIOS ?=
# How long make soak takes, and how many resources it has.
SOAK_TIME ?= 2h
SOAK_SIZE ?= 500
# Arguments for the program that run or lint starts.
ARGS ?=
# How many packages are tested at once: each with a control plane of its own fills a core.
TEST_PACKAGES ?= 2
# How many tests of a package run at once: most of them wait, for a timer or the API server.
TEST_PARALLEL ?= 8
# The long tables of internal/controller, which run without the race detector.
TEST_TABLES = ^(TestErrorMatrix|TestRefusedActions|TestTicketModels)$$
TEST_TIMEOUT ?= 20m

# The race detector needs cgo. Without it the tests run all the same, and make test says so in the end; .ci/run demands it.
RACE = $(if $(filter 1,$(shell $(GO) env CGO_ENABLED)),-race)

# What image-oci builds for, and where; and where make cluster keeps everything.
OCI_PLATFORMS ?= linux/amd64 linux/arm64
OCI_IMAGES ?= operator
CLUSTER_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/wechat-token-operator/cluster

SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Built on first use into the user's cache directory, or downloaded, see hack/tools and hack/controlplane.
CONTROLLER_GEN = "$$(hack/tools/build.sh controller-gen)"
KUSTOMIZE = "$$(hack/tools/build.sh kustomize)"
CRD_REF_DOCS = "$$(hack/tools/build.sh crd-ref-docs)"
ACTIONLINT = "$$(hack/tools/build.sh actionlint)"
GOVULNCHECK = "$$(hack/tools/build.sh govulncheck)"
GOLANGCI_LINT = "$$(hack/tools/build.sh golangci-lint)"
HELM = "$$(hack/tools/build.sh helm)"
HELM3 = "$$(hack/tools/build.sh helm3)"
HELM_UNITTEST = "$$(hack/tools/build.sh helm-unittest)"
CHART = charts/wechat-token-operator
PROMETHEUS = "$$(hack/tools/build.sh prometheus)"
ASSETS = $$(hack/controlplane/build.sh etcd kube-apiserver kubectl)
# kube-controller-manager collects garbage in tests of the chart and of test/chaos. It is in no download and takes minutes to build.
TEST_ASSETS = $$(hack/controlplane/build.sh etcd kube-apiserver kubectl kube-controller-manager)
OLDEST_ASSETS = $$(hack/controlplane/build.sh --oldest etcd kube-apiserver kubectl kube-controller-manager)
# What depends on the version of Kubernetes.
OLDEST_PACKAGES ?= ./api/... ./internal/fence ./internal/controller ./cmd/operator ./cmd/gateway ./cmd/kubectl-wxtoken ./test/chart

##@ General

.PHONY: help
help: ## Show this help.
	@awk 'BEGIN {FS = ":.*##"; print "Usage: make TARGET [VARIABLE=value]"} \
		/^[a-zA-Z_-]+:.*?##/ {printf "  \033[36m%-16s\033[0m %s\n", $$1, $$2} \
		/^##@/ {printf "\n\033[1m%s\033[0m\n", substr($$0, 5)}' $(MAKEFILE_LIST)

##@ See it work

# Demo and operator in one build: with other flags, such as those of build, most packages would be compiled twice.
BUILD_DEMO = echo "==> building the operator and the demo: some minutes on 2 cores, once" >&2; \
	CGO_ENABLED=0 $(GO) build -buildvcs=false -ldflags "-X main.version=$(VERSION)" -o bin/demo/ ./cmd/operator ./hack/demo
DEMO = bin/demo/demo --operator bin/demo/operator $(if $(filter-out 0,$(KEEP)),--keep)

.PHONY: demo
demo: ## Run the story on a control plane of its own. KEEP=1 leaves it running.
	@assets=$(ASSETS); $(BUILD_DEMO); \
	$(DEMO) --assets "$$assets" $(ARGS)

# The program with the SDK is a module of its own.
BUILD_DEMO_GATEWAY = $(BUILD_DEMO) ./cmd/gateway; \
	CGO_ENABLED=0 $(GO) -C examples/gateway/silenceper build -buildvcs=false -o "$$PWD/bin/demo/silenceper" .

.PHONY: demo-gateway
demo-gateway: ## Run the story of an SDK that calls through the gateway, while token and key change. KEEP=1 leaves it running.
	@assets=$(ASSETS); $(BUILD_DEMO_GATEWAY); \
	$(DEMO) --assets "$$assets" --gateway bin/demo/gateway --program bin/demo/silenceper \
		--sample config/samples/wechat_v1alpha1_wechatappclient.yaml $(ARGS)

.PHONY: observe
observe: ## Run Prometheus on the demo and print each query of the dashboard with its value. KEEP=1 leaves it running.
	@assets=$(ASSETS); prometheus=$(PROMETHEUS); $(BUILD_DEMO); \
	$(DEMO) --assets "$$assets" --prometheus "$$prometheus" $(ARGS)

.PHONY: run
run: ## Run the operator on this machine against the cluster of your KUBECONFIG (CRD: make install).
	$(GO) run -ldflags "-X main.version=$(VERSION)" ./cmd/operator $(ARGS)

##@ Develop

.PHONY: generate
generate: ## Write the generated Go: deep copies and apply configurations.
	$(CONTROLLER_GEN) object:headerFile=hack/boilerplate.go.txt applyconfiguration:headerFile=hack/boilerplate.go.txt paths=./api/...

.PHONY: manifests
manifests: ## Write the generated YAML: the CRD and the operator's role.
	$(CONTROLLER_GEN) crd paths=./api/... output:crd:artifacts:config=config/crd/bases
	$(CONTROLLER_GEN) rbac:roleName=manager-role paths=./internal/controller/... paths=./internal/appclient/... output:rbac:artifacts:config=config/rbac

.PHONY: chart
chart: ## Write what the chart shares with config/, and the table of values in its README.
	hack/chart-files.sh $(CHART)
	$(GO) run ./hack/chart-readme $(CHART)

.PHONY: api-docs
api-docs: ## Write docs/api.md from the types.
	$(CRD_REF_DOCS) --source-path api/v1alpha1 --config hack/tools/crd-ref-docs/config.yaml --renderer markdown \
		--log-level ERROR --output-path docs/api.md.tmp
	@{ echo '<!-- Written by make api-docs from api/v1alpha1; do not edit. -->'; cat docs/api.md.tmp; } | cat -s > docs/api.md
	@rm docs/api.md.tmp

.PHONY: foreign-crds
foreign-crds: ## Write other projects' CRDs into test/testdata, from the versions in hack/foreign-crds.
	rm -f test/testdata/foreign-crds/*.yaml
	$(GO) run ./hack/foreign-crds test/testdata/foreign-crds

.PHONY: fmt
fmt: ## Format the Go files.
	gofmt -l -w .

.PHONY: vet
vet: ## Run go vet, and build the kubectl plugin for Windows.
	$(GO) vet ./...
	GOOS=windows $(GO) build -o /dev/null ./cmd/kubectl-wxtoken

.PHONY: lint
lint: ## Run the linters (ARGS=--fix repairs what can be).
	$(GOLANGCI_LINT) run $(ARGS) ./...
	$(ACTIONLINT) .github/workflows/*.yaml
	@if command -v shellcheck >/dev/null; then shellcheck -x hack/*.sh hack/*/*.sh .ci/run; else echo "shellcheck is not installed: shell scripts not linted"; fi

.PHONY: verify
verify: ## Check that generated files, module files and formatting are up to date; changes nothing.
	hack/verify.sh

.PHONY: test
test: verify vet lint chart-lint fuzz-short ## Check everything and test the programs, with the race detector, on a real API server. The rest: test-integration.
	assets=$(ASSETS); \
	KUBEBUILDER_ASSETS="$$assets" KUBE_CACHE_MUTATION_DETECTOR=true $(GO) test $(RACE) -p $(TEST_PACKAGES) -parallel $(TEST_PARALLEL) -timeout $(TEST_TIMEOUT) \
		-skip '$(TEST_TABLES)' ./api/... ./cmd/... ./internal/...
	@hack/unchecked.sh programs

.PHONY: test-integration
test-integration: argocd-test flux-test image-test sdk-test ## Test what is around the programs: chart, GitOps, SDKs, images, documents, examples, attacks.
	@hack/tools/build.sh promtool >/dev/null; hack/tools/build.sh prometheus >/dev/null # ahead of the tests' time limit
	@# The race detector takes several times the CPU, and these tests drive built binaries. The tables of the controller repeat the passes
	@# of its other tests for hundreds of answers and refusals.
	assets=$(TEST_ASSETS); helm=$(HELM); \
	export KUBEBUILDER_ASSETS="$$assets" HELM="$$helm"; \
	$(GO) test -parallel $(TEST_PARALLEL) -timeout $(TEST_TIMEOUT) -run '$(TEST_TABLES)' ./internal/controller; \
	$(GO) test -p $(TEST_PACKAGES) -parallel $(TEST_PARALLEL) -timeout $(TEST_TIMEOUT) \
		$$($(GO) list ./... | grep -vE '/(api|cmd|internal)/|/test/sdk(/|$$)')
	@hack/unchecked.sh

.PHONY: test-all
test-all: test test-integration ## Run all tests that CI runs, but for the node of e2e.

.PHONY: test-oldest
test-oldest: ## Run what depends on Kubernetes on the oldest version that the chart admits, which it builds; not part of test-all.
	GOWORK=off $(GO) -C hack/controlplane/oldest mod tidy -diff
	assets=$(OLDEST_ASSETS); helm=$(HELM); \
	export KUBEBUILDER_ASSETS="$$assets" HELM="$$helm"; \
	"$$assets/kube-apiserver" --version; \
	$(GO) test -count=1 -p $(TEST_PACKAGES) -parallel $(TEST_PARALLEL) -timeout $(TEST_TIMEOUT) \
		-skip '$(TEST_TABLES)' $(ARGS) $(OLDEST_PACKAGES)

.PHONY: test-helm3
test-helm3: ## Run the tests of the chart with Helm 3, on the newest and the oldest Kubernetes; not part of test-all.
	helm=$(HELM3); assets=$(TEST_ASSETS); oldest=$(OLDEST_ASSETS); \
	"$$helm" lint --strict $(CHART); "$$helm" version --short; \
	for folder in "$$assets" "$$oldest"; do \
		"$$folder/kube-apiserver" --version; \
		KUBEBUILDER_ASSETS="$$folder" HELM="$$helm" $(GO) test -count=1 -timeout $(TEST_TIMEOUT) ./test/chart; \
	done

.PHONY: test-arm64
test-arm64: ## Run the demo with an operator for arm64 under qemu-user, and start the other programs and the image; as root, not part of test-all.
	CGO_ENABLED=0 GOARCH=arm64 $(GO) build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$(VERSION)" -o bin/arm64/ \
		./cmd/operator ./cmd/gateway ./cmd/kubectl-wxtoken
	qemu=$$(command -v qemu-aarch64-static || command -v qemu-aarch64); \
	for program in "operator --version" "gateway --version" "kubectl-wxtoken version"; do "$$qemu" bin/arm64/$$program; done; \
	printf '#!/bin/sh\nexec %s bin/arm64/operator "$$@"\n' "$$qemu" >bin/arm64/operator-under-qemu; chmod +x bin/arm64/operator-under-qemu; \
	assets=$(ASSETS); $(BUILD_DEMO); bin/demo/demo --operator bin/arm64/operator-under-qemu --assets "$$assets" $(ARGS)
	PLATFORMS=linux/arm64 VERSION="$(VERSION)" hack/image/build.sh bin/arm64/images operator
	hack/image/start.sh bin/arm64/images/operator.tar "/operator --version" "/gateway --version"

.PHONY: test-more
test-more: flux-real-test argocd-code-test test-oldest test-helm3 ## Run what takes too long for test-all: Flux, Argo CD's code, other versions.

.PHONY: chart-lint
chart-lint: ## Lint the chart and run its unit tests.
	$(HELM) lint --strict $(CHART)
	$(HELM_UNITTEST) --strict $(CHART)

.PHONY: chart-test
chart-test: chart-lint ## Everything about the chart: with the real helm on a real API server; part of test-integration.
	assets=$(TEST_ASSETS); helm=$(HELM); \
	KUBEBUILDER_ASSETS="$$assets" HELM="$$helm" $(GO) test -timeout $(TEST_TIMEOUT) ./test/chart ./hack/chart-readme

.PHONY: argocd-test
argocd-test: ## Run Argo CD's health checks and actions in config/argocd; part of test-integration.
	$(GO) -C test/argocd vet ./...
	@# Go's cache of test results knows nothing of files outside the module.
	$(GO) -C test/argocd test -count=1 ./...

.PHONY: argocd-code-test
argocd-code-test: ## Judge health and differences by Argo CD's own code; not part of test-all.
	GOWORK=off $(GO) -C test/argocd/library mod tidy -diff
	$(GO) -C test/argocd/library vet ./...
	assets=$(ASSETS); \
	KUBEBUILDER_ASSETS="$$assets" $(GO) -C test/argocd/library test -count=1 ./...

.PHONY: flux-test
flux-test: ## Test what Flux's own code makes of config/ and of the chart; part of test-integration.
	$(GO) -C test/flux vet ./...
	@# Go's cache of test results knows nothing of files outside the module.
	$(GO) -C test/flux test -count=1 ./...

.PHONY: flux-real-test
flux-real-test: ## Run Flux's own controllers on a real API server, and print a table of what they say; not part of test-all.
	GOWORK=off $(GO) -C hack/tools/flux mod tidy -diff
	$(GO) -C test/flux/controllers vet ./...
	@for tool in kustomize-controller source-controller; do hack/tools/build.sh $$tool >/dev/null; done # ahead of the test's time limit
	assets=$(TEST_ASSETS); \
	KUBEBUILDER_ASSETS="$$assets" $(GO) -C test/flux/controllers test -count=1 -timeout $(TEST_TIMEOUT) -v ./... | grep --line-buffered -v '^=== '

.PHONY: image-test
image-test: ## Test what make image-oci makes: reproducible, and like the Dockerfile's; part of test-integration.
	$(GO) -C hack/image vet ./...
	@# Go's cache of test results knows nothing of files outside the module.
	$(GO) -C hack/image test -count=1 ./...

.PHONY: sdk-test
sdk-test: ## Run SDKs for WeChat with the token in a file and with the gateway, from the Go module proxy and npm; part of test-integration.
	$(GO) -C examples/sdk/silenceper vet ./...
	$(GO) -C examples/gateway/silenceper vet ./...
	$(GO) test -p 1 -v -timeout $(TEST_TIMEOUT) ./test/sdk/...

.PHONY: docs-test
docs-test: ## Run the tests of the documents and of examples/readers; make test-all runs them too.
	assets=$(ASSETS); \
	KUBEBUILDER_ASSETS="$$assets" $(GO) test $(RACE) ./test/docs ./examples/readers && \
	$(GO) test -run '^TestDocs' ./cmd/operator ./cmd/gateway ./internal/wechat

.PHONY: docs-zh-status
docs-zh-status: ## Print which Chinese pages are behind their English ones, and what changed in those.
	@hack/docs-zh-status.sh

.PHONY: govulncheck
govulncheck: ## Look for known vulnerabilities; it needs https://vuln.go.dev.
	$(GOVULNCHECK) ./...

.PHONY: fuzz-short
fuzz-short: ## Run each fuzz target for some thousand inputs.
	@# A number and not a time: on a busy machine the end of the time itself can fail a target with "context deadline exceeded".
	@$(MAKE) --no-print-directory fuzz FUZZTIME=10000x

.PHONY: fuzz
fuzz: ## Run each fuzz target for FUZZTIME.
	@grep -rE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+\(' internal | \
	sed -E 's#^(.*)/[^/]+:func (Fuzz[A-Za-z0-9_]+)\(.*#\1 \2#' | sort -u | \
	while read -r package target; do \
		echo "==> $$package $$target"; \
		$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "./$$package" </dev/null; \
	done

.PHONY: chaos
chaos: ## Attack the operator with all scenarios for CHAOS_TIME, and print a table (SEED=2 for another run, see docs/reliability.md).
	@assets=$(TEST_ASSETS); \
	KUBEBUILDER_ASSETS="$$assets" CHAOS_TIME=$(CHAOS_TIME) SEED=$(SEED) SCENARIOS=$(SCENARIOS) \
		$(GO) test -run '^TestChaos$$' -count=1 -timeout 40m -v ./test/chaos | grep --line-buffered -v '^=== '

.PHONY: chaos-gateway
chaos-gateway: ## Attack the gateway for CHAOS_TIME while SDKs call through it, and print a table (see docs/reliability.md).
	@assets=$(ASSETS); \
	KUBEBUILDER_ASSETS="$$assets" CHAOS_TIME=$(CHAOS_TIME) SCENARIOS=$(SCENARIOS) \
		$(GO) test -run '^TestChaos$$' -count=1 -timeout 40m -v ./test/chaos/gateway | grep --line-buffered -v '^=== '

.PHONY: soak
soak: build ## Run operators and gateways for SOAK_TIME with faults at random; nothing may grow or be invalid (see docs/reliability.md).
	@assets=$(TEST_ASSETS); \
	KUBEBUILDER_ASSETS="$$assets" SOAK_TIME=$(SOAK_TIME) SOAK_SIZE=$(SOAK_SIZE) SOAK_ROWS="$(CURDIR)/bin/soak.jsonl" SEED=$(SEED) \
		$(GO) test -run '^TestSoak$$' -count=1 -timeout 0 -v ./test/chaos | grep --line-buffered -v '^=== '

# The sizes of the gate, small enough for a laptop; see test/bench/ranges.yaml.
BENCH_CHECK_SIZE ?= 300

.PHONY: bench
bench: bench-build ## Measure against the goals and a plain loop, on a machine with nothing else to do (ARGS=--help lists flags).
	assets=$(ASSETS); \
	KUBEBUILDER_ASSETS="$$assets" bin/bench --version "$(VERSION)" --json bin/bench.json $(ARGS)

.PHONY: bench-100k
bench-100k: bench-build ## Memory and restart with 100,000 resources; takes about 16 GiB and most of an hour.
	assets=$(ASSETS); \
	KUBEBUILDER_ASSETS="$$assets" bin/bench --version "$(VERSION)" --json bin/bench-100k.json --sizes 1000,100000 \
		--runs cold,restart --etcd-quota 8589934592 $(ARGS)

.PHONY: bench-check
bench-check: bench-build ## Compare ratios at a small size with the ranges in test/bench/ranges.yaml.
	assets=$(ASSETS); \
	KUBEBUILDER_ASSETS="$$assets" bin/bench --version "$(VERSION)" --json bin/bench-check.json --sizes $(BENCH_CHECK_SIZE) \
		--runs cold,restart,rotation,slow --ranges test/bench/ranges.yaml $(ARGS)

.PHONY: bench-gateway
bench-gateway: ## Measure the gateway against its goals, beside a bare proxy and Caddy, on a machine with nothing else to do.
	@caddy="$$(hack/tools/build.sh caddy)" && $(GO) build -o bin/bench-gateway ./test/bench/gateway && \
	taskset -c 1 bin/bench-gateway --caddy "$$caddy" $(ARGS)

.PHONY: bench-plots
bench-plots: ## Draw docs/images/*.svg from bin/bench*.json and bin/soak.jsonl.
	@mkdir -p docs/images
	"$$(hack/tools/build.sh benchplot)" -out docs/images $(wildcard bin/bench.json bin/bench-100k.json bin/soak.jsonl)

.PHONY: bench-build
bench-build: build
	CGO_ENABLED=0 $(GO) build -buildvcs=false -o bin/ ./hack/fake-wechat ./test/bench # the harness finds config/crd by its source path

##@ A real cluster

# Images for the cluster on this machine, and the folder of its control plane.
CLUSTER_IMAGES = PLATFORMS=linux/$$($(GO) env GOARCH) VERSION="$(VERSION)" hack/image/build.sh
CLUSTER_ASSETS = $$(hack/controlplane/build.sh all)
CLUSTER = bin/cluster --dir "$(CLUSTER_DIR)"
# What a cluster gets besides its own images.
CLUSTER_LOADS = operator fake-wechat qrcode h5 show-token
# kubectl for that cluster and no other, whatever is exported. It ends with an error if none runs.
CLUSTER_KUBECTL = kubeconfig=$$($(CLUSTER) kubeconfig); assets=$(CLUSTER_ASSETS); \
	export KUBECONFIG="$$kubeconfig" KUBECTL="$$assets/kubectl"

.PHONY: cluster
cluster: bin-cluster ## Run a cluster of one node from source on this Linux machine, as root; see hack/cluster/README.md.
	@$(CLUSTER) check
	@echo "What is not built yet of Kubernetes, CoreDNS and Helm is built first: 15 to 30 minutes on 2 cores for all, once."
	@assets=$(CLUSTER_ASSETS); helm=$(HELM); \
	TAG=cluster $(CLUSTER_IMAGES) dist/images/cluster pause coredns >/dev/null; \
	$(CLUSTER) --assets "$$assets" --helm "$$helm" --images dist/images/cluster up
	@echo "Next: make cluster-operator, then make cluster-down when you are done."

.PHONY: cluster-down
cluster-down: bin-cluster ## End that cluster and remove everything that it made.
	@$(CLUSTER) down
	@source hack/build-cached.sh; echo "the cluster is gone; what was built stays in $$(cache_root). To use your own cluster again: unset KUBECONFIG"

.PHONY: cluster-load
cluster-load: bin-cluster ## Build this repository's images and load them into that cluster.
	@$(CLUSTER) kubeconfig >/dev/null # first, because the images take a while
	@$(CLUSTER_IMAGES) dist/images $(CLUSTER_LOADS)
	@$(CLUSTER) load $(CLUSTER_LOADS:%=dist/images/%.tar)

.PHONY: cluster-operator
cluster-operator: cluster-load ## Install the operator and the stand-in for WeChat there, and say what to try.
	@$(CLUSTER_KUBECTL); hack/cluster/operator.sh; cat hack/cluster/next.txt

.PHONY: cluster-qrcode
cluster-qrcode: bin-cluster ## Run examples/qrcode there, after make cluster-operator, with the stand-in for WeChat.
	@$(CLUSTER_KUBECTL); hack/cluster/qrcode.sh

.PHONY: cluster-kind
cluster-kind: ## The same with kind, on a machine with docker: a cluster with this repository's images.
	kind create cluster --name wechat-token-operator
	@$(CLUSTER_IMAGES) dist/images $(CLUSTER_LOADS)
	for image in $(CLUSTER_LOADS); do kind load image-archive --name wechat-token-operator "dist/images/$$image.tar"; done

.PHONY: e2e
e2e: bin-cluster plugin ## Test the operator as its users have it, on a cluster of its own or that of E2E_KUBECONFIG.
	@assets=$(CLUSTER_ASSETS); helm=$(HELM); \
	KUBEBUILDER_ASSETS="$$assets" HELM="$$helm" hack/cluster/e2e.sh

.PHONY: bin-cluster
bin-cluster:
	@CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -o bin/cluster ./hack/cluster

##@ Build

.PHONY: controlplane
controlplane: ## Build the whole control plane into the cache; other targets download or build what they need.
	@hack/controlplane/build.sh all

.PHONY: build
build: ## Build bin/operator and bin/gateway, static binaries.
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$(VERSION)" -o bin/ ./cmd/operator ./cmd/gateway

.PHONY: plugin
plugin: ## Build bin/kubectl-wxtoken, the plugin behind "kubectl wxtoken", and its completion. Put bin on your PATH.
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$(VERSION)" -o bin/kubectl-wxtoken ./cmd/kubectl-wxtoken
	install -m 0755 cmd/kubectl-wxtoken/kubectl_complete-wxtoken bin/kubectl_complete-wxtoken
	@echo 'For this shell: export PATH="$(CURDIR)/bin:$$PATH"'

.PHONY: plugin-dist
plugin-dist: ## Build the plugin's archives and its Krew manifest for VERSION into dist/krew (PLATFORMS="linux/amd64 …").
	PLATFORMS="$(PLATFORMS)" hack/krew/dist.sh "$(VERSION)"

.PHONY: image
image: ## Build the image IMG (PLATFORM=linux/arm64 for another platform).
	$(CONTAINER_TOOL) build $(if $(PLATFORM),--platform $(PLATFORM)) --build-arg VERSION=$(VERSION) \
		$(foreach v,BUILDER_IMAGE BASE_IMAGE GOPROXY,$(if $($(v)),--build-arg $(v)=$($(v)))) -t $(IMG) .

.PHONY: image-oci
image-oci: ## Build the same image without a container engine, as dist/images/operator.tar (OCI_IMAGES="operator qrcode" for more).
	@PLATFORMS="$(OCI_PLATFORMS)" VERSION="$(VERSION)" hack/image/build.sh dist/images $(OCI_IMAGES)

.PHONY: push
push: require-img ## Push the image IMG.
	$(CONTAINER_TOOL) push $(IMG)

.PHONY: build-installer
build-installer: overlay ## Write dist/install.yaml, everything for kubectl apply, with the image IMG.
	$(KUSTOMIZE) build dist/overlay > dist/install.yaml.tmp
	mv dist/install.yaml.tmp dist/install.yaml
	@echo "dist/install.yaml runs $(IMG)"

##@ Deploy to the cluster of your KUBECONFIG

.PHONY: install
install: ## Install the CRD.
	$(KUSTOMIZE) build config/crd | $(KUBECTL) apply --server-side -f -

.PHONY: uninstall
uninstall: ## Delete the CRD, and with it every WeChatAppToken and the Secrets they own.
	$(KUSTOMIZE) build config/crd | $(KUBECTL) delete --ignore-not-found -f -

.PHONY: deploy
deploy: require-img overlay ## Install or update the operator with the image IMG.
	$(KUSTOMIZE) build dist/overlay | $(KUBECTL) apply --server-side -f -

.PHONY: undeploy
undeploy: ## Delete the operator and the CRD, and with it every WeChatAppToken and the Secrets they own.
	@# What is optional too: its objects are not in the namespace and would stay.
	@for dir in config/default config/prompt-delivery config/admission-policy; do \
		$(KUSTOMIZE) build "$$dir" | $(KUBECTL) delete --ignore-not-found -f -; \
	done

##@ Clean up

.PHONY: clean
clean: ## Delete what was built here; the cache stays.
	rm -rf bin dist

# config/ stays as it is: the image is set in an overlay.
.PHONY: overlay
overlay:
	@rm -rf dist/overlay && mkdir -p dist/overlay
	@kustomize=$(KUSTOMIZE); cd dist/overlay && "$$kustomize" create --resources ../../config/default && \
		$(if $(filter-out 0,$(PROMPT_DELIVERY)),"$$kustomize" edit add component ../../config/prompt-delivery &&) \
		"$$kustomize" edit set image controller=$(IMG)

.PHONY: require-img
require-img:
	@if [[ "$(origin IMG)" == file ]]; then echo "Say which image: make $(MAKECMDGOALS) IMG=registry.example.com/wechat-token-operator:v0.1.0" >&2; exit 2; fi
