# SPDX-License-Identifier: Apache-2.0

# Both images are pinned by digest, which Dependabot moves, and can be replaced, for example by mirrors.
ARG BUILDER_IMAGE=golang:1.26.8@sha256:3c3e25a4da13fd0478eed2df1eb35a0e667094a7124d3993a6a1d30f71c17e79
ARG BASE_IMAGE=gcr.io/distroless/static:nonroot@sha256:e2e927ec666bae08560abb3c55d0659eceabb657f56b6782ab500a9fc7f555e3

# The compiler runs on the machine that builds and cross-compiles, instead of being emulated.
FROM --platform=${BUILDPLATFORM:-linux/amd64} ${BUILDER_IMAGE} AS builder
ARG TARGETOS
ARG TARGETARCH
ARG VERSION=dev
# Empty means Go's default.
ARG GOPROXY
WORKDIR /src

# A layer of its own, so that a change of code does not download the modules again.
COPY go.mod go.sum ./
RUN go mod download

COPY api/ api/
COPY cmd/operator/ cmd/operator/
COPY cmd/gateway/ cmd/gateway/
COPY internal/ internal/
RUN CGO_ENABLED=0 GOOS=${TARGETOS:-linux} GOARCH=${TARGETARCH} \
    go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=${VERSION}" -o /out/ ./cmd/operator ./cmd/gateway

# One image has both programs: there is one to mirror, to scan and to pin, and no pair of versions that do not fit. The gateway's pods
# name /gateway as their command.
FROM ${BASE_IMAGE}
COPY --from=builder /out/operator /out/gateway /
USER 65532:65532
ENTRYPOINT ["/operator"]
