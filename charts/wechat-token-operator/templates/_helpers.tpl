{{/* SPDX-License-Identifier: Apache-2.0 */}}

{{/*
Gives every value that is missing or null its default. All templates begin with it. Helm takes a null for "no such key", and
--reuse-values knows no value of a newer chart; without a default either could turn off what protects.
files/values.yaml is a copy of values.yaml, held equal by make verify.
*/}}
{{- define "wechat-token-operator.defaults" -}}
{{- include "wechat-token-operator.fill" (dict "values" .Values "defaults" (.Files.Get "files/values.yaml" | fromYaml)) }}
{{- end }}

{{/* In maps that Kubernetes defines, and in labels, a null removes a key. */}}
{{- define "wechat-token-operator.fill" -}}
{{- $values := .values }}
{{- range $key, $default := .defaults }}
{{- if not (has $key (list "labels" "podSecurityContext" "resources" "securityContext")) }}
{{- if kindIs "invalid" (index $values $key) }}
{{- $_ := set $values $key $default }}
{{- else if kindIs "map" $default }}
{{- include "wechat-token-operator.fill" (dict "values" (index $values $key) "defaults" $default) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Labels or annotations from a list of maps as YAML, or nothing. A later map wins, and its nulls remove a key. */}}
{{- define "wechat-token-operator.map" -}}
{{- $all := dict }}
{{- range . }}
{{- range $key, $value := . }}
{{- if kindIs "invalid" $value }}
{{- $_ := unset $all $key }}
{{- else }}
{{- $_ := set $all $key $value }}
{{- end }}
{{- end }}
{{- end }}
{{- with $all }}
{{- toYaml . }}
{{- end }}
{{- end }}

{{- define "wechat-token-operator.name" -}}
{{- include "wechat-token-operator.labelValue" (default .Chart.Name .Values.nameOverride | trunc 40) }}
{{- end }}

{{/* A dependency's alias, which becomes the chart's name, may begin or end with what a label's value may not. */}}
{{- define "wechat-token-operator.labelValue" -}}
{{- regexReplaceAll "^[^A-Za-z0-9]+|[^A-Za-z0-9]+$" (regexReplaceAll "[^A-Za-z0-9._-]" . "_" | trunc 63) "" }}
{{- end }}

{{/*
The prefix of all names. It has at most 40 characters, because the longest suffix of a label's value has 23 and such a value at most
63. It begins with a letter and has no dots, because a Service's name must be so. A name that is changed for this gets a hash, so
that no two releases get the same.
*/}}
{{- define "wechat-token-operator.fullname" -}}
{{- $chart := default .Chart.Name .Values.nameOverride }}
{{- $given := .Values.fullnameOverride }}
{{- if not $given }}
{{- /* Several dependencies of one chart have aliases, and a release's name may contain more than one of them. */}}
{{- $contained := and (contains $chart .Release.Name) (or .Values.nameOverride (eq .Chart.Name "wechat-token-operator")) }}
{{- $given = ternary .Release.Name (printf "%s-%s" .Release.Name $chart) (not (empty $contained)) }}
{{- end }}
{{- $name := regexReplaceAll "[^a-z0-9-]" (lower $given) "-" | trimAll "-" }}
{{- if regexMatch "^([0-9]|$)" $name }}
{{- $name = printf "r-%s" $name }}
{{- end }}
{{- if or (ne $name $given) (gt (len $name) 40) }}
{{- $name = printf "%s-%s" (trunc 31 $name | trimSuffix "-") (sha256sum $given | trunc 8) }}
{{- end }}
{{- $name }}
{{- end }}

{{/* The prefix of names that the whole cluster shares: two releases of one name may be in two namespaces. */}}
{{- define "wechat-token-operator.clusterName" -}}
{{- $name := include "wechat-token-operator.fullname" . }}
{{- if eq .Release.Namespace (printf "%s-system" $name) }}
{{- $name }}
{{- else }}
{{- printf "%s-%s" $name .Release.Namespace }}
{{- end }}
{{- end }}

{{- define "wechat-token-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (printf "%s-controller-manager" (include "wechat-token-operator.fullname" .)) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "wechat-token-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "wechat-token-operator.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
control-plane: controller-manager
{{- end }}

{{- define "wechat-token-operator.labels" -}}
{{- include "wechat-token-operator.labelsWith" (list . dict) }}
{{- end }}

{{/* The labels of an object, and more of them, which win: a list of the context and a map. */}}
{{- define "wechat-token-operator.labelsWith" -}}
{{- $ := first . }}
{{- $own := dict
  "helm.sh/chart" (include "wechat-token-operator.labelValue" (printf "%s-%s" $.Chart.Name $.Chart.Version | replace "+" "_"))
  "app.kubernetes.io/name" (include "wechat-token-operator.name" $)
  "app.kubernetes.io/instance" $.Release.Name
  "app.kubernetes.io/version" (include "wechat-token-operator.labelValue" (toString $.Chart.AppVersion))
  "app.kubernetes.io/part-of" "wechat-token-operator"
  "app.kubernetes.io/managed-by" $.Release.Service }}
{{- include "wechat-token-operator.map" (list $.Values.commonLabels $own (last .)) }}
{{- end }}

{{- define "wechat-token-operator.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{/* The ConfigMap with certificate authorities; nothing without one. */}}
{{- define "wechat-token-operator.caConfigMap" -}}
{{- with .Values.wechat.caBundle }}
{{- if .inline }}
{{- printf "%s-wechat-ca" (include "wechat-token-operator.fullname" $) }}
{{- else }}
{{- .configMap }}
{{- end }}
{{- end }}
{{- end }}

{{/* The Secret with the certificate for the metrics; nothing where none is served. */}}
{{- define "wechat-token-operator.metricsCertificate" -}}
{{- with .Values.metrics }}
{{- if and .enabled .secure }}
{{- .certificate.secretName }}
{{- end }}
{{- end }}
{{- end }}

{{/* How operator and gateway log. */}}
{{- define "wechat-token-operator.logArgs" -}}
{{- $args := list }}
{{- with .Values.log.level }}
{{- $args = append $args (printf "--zap-log-level=%s" .) }}
{{- end }}
{{- with .Values.log.format }}
{{- $args = append $args (printf "--zap-encoder=%s" .) }}
{{- end }}
{{- toJson $args }}
{{- end }}

{{- define "wechat-token-operator.args" -}}
{{- $args := list "--leader-elect" (printf "--metrics-bind-address=%s" (ternary (printf ":%d" (int64 .Values.metrics.port)) "0" .Values.metrics.enabled))
  "--health-probe-bind-address=:8081" }}
{{- if and .Values.metrics.enabled (not .Values.metrics.secure) }}
{{- $args = append $args "--metrics-secure=false" }}
{{- end }}
{{- if include "wechat-token-operator.metricsCertificate" . }}
{{- $args = append $args "--metrics-cert-path=/etc/metrics-cert" }}
{{- $args = append $args (printf "--metrics-cert-name=%s" .Values.metrics.certificate.certName) }}
{{- $args = append $args (printf "--metrics-cert-key=%s" .Values.metrics.certificate.keyName) }}
{{- end }}
{{- $args = concat $args (include "wechat-token-operator.logArgs" . | fromJsonArray) }}
{{- with .Values.watch.namespaces }}
{{- $args = append $args (printf "--namespaces=%s" (join "," .)) }}
{{- end }}
{{- with .Values.watch.labelSelector }}
{{- $args = append $args (printf "--watch-label-selector=%s" .) }}
{{- end }}
{{- if .Values.requireCredentialsLabel }}
{{- $args = append $args "--require-credentials-label" }}
{{- end }}
{{- if .Values.promptDelivery.enabled }}
{{- $args = append $args "--prompt-delivery" }}
{{- end }}
{{- if .Values.gateway.enabled }}
{{- $args = append $args (printf "--gateway-url=%s" (include "wechat-token-operator.gatewayURL" .)) }}
{{- if include "wechat-token-operator.gatewayCA" . }}
{{- $args = append $args "--gateway-ca-file=/etc/gateway-ca/ca.crt" }}
{{- end }}
{{- end }}
{{- with .Values.wechat.endpoints }}
{{- $args = append $args (printf "--wechat-endpoints=%s" (join "," .)) }}
{{- end }}
{{- if include "wechat-token-operator.caConfigMap" . }}
{{- $args = append $args (printf "--wechat-ca-file=/etc/wechat-ca/%s" .Values.wechat.caBundle.key) }}
{{- end }}
{{- toYaml (concat $args .Values.extraArgs) }}
{{- end }}

{{/*
The environment of a program: a list of the context and the variables that are given for it. A proxy is for WeChat alone: the API server,
whose address Kubernetes puts into the environment, is called directly.
*/}}
{{- define "wechat-token-operator.env" -}}
{{- $given := last . }}
{{- $own := list }}
{{- with (first .).Values.proxy }}
{{- if .secretName }}
{{- $own = append $own (dict "name" "HTTPS_PROXY" "valueFrom" (dict "secretKeyRef" (dict "name" .secretName "key" .secretKey))) }}
{{- else if .httpsProxy }}
{{- $own = append $own (dict "name" "HTTPS_PROXY" "value" (trim .httpsProxy)) }}
{{- end }}
{{- if $own }}
{{- $own = append $own (dict "name" "NO_PROXY" "value" (prepend .noProxy "$(KUBERNETES_SERVICE_HOST)" | join ",")) }}
{{- end }}
{{- end }}
{{- with include "wechat-token-operator.variables" (list $own $given) | fromJsonArray }}
{{- toYaml . }}
{{- end }}
{{- end }}

{{/* Two lists of variables as one. Of a name that is in both the second counts: server-side apply refuses a variable that comes twice. */}}
{{- define "wechat-token-operator.variables" -}}
{{- $names := list }}
{{- range last . }}
{{- $names = append $names .name }}
{{- end }}
{{- $variables := list }}
{{- range first . }}
{{- if not (has .name $names) }}
{{- $variables = append $variables . }}
{{- end }}
{{- end }}
{{- toJson (concat $variables (last .)) }}
{{- end }}

{{/* The gateway calls WeChat as the operator does, so it has those of the operator's variables that name a proxy. */}}
{{- define "wechat-token-operator.gatewayEnv" -}}
{{- $proxy := list }}
{{- range .Values.extraEnv }}
{{- if has (upper .name) (list "HTTPS_PROXY" "NO_PROXY") }}
{{- $proxy = append $proxy . }}
{{- end }}
{{- end }}
{{- include "wechat-token-operator.env" (list . (include "wechat-token-operator.variables" (list $proxy .Values.gateway.extraEnv) | fromJsonArray)) }}
{{- end }}

{{/* The port of a URL. */}}
{{- define "wechat-token-operator.port" -}}
{{- $url := trim . | lower }}
{{- $host := regexReplaceAll "[/?#].*$" (regexReplaceAll "^([a-z0-9]+://)?([^/]*@)?" $url "") "" }}
{{- $scheme := dict "https" "443" "socks5" "1080" "socks5h" "1080" }}
{{- regexFind ":[0-9]+$" $host | trimPrefix ":" | default (get $scheme (regexFind "^[a-z0-9]+:" $url | trimSuffix ":") | default "80") }}
{{- end }}

{{/* The ports by which WeChat is reached, each once: those that are given, and those that follow from the proxy or the endpoints. */}}
{{- define "wechat-token-operator.wechatPorts" -}}
{{- $ports := list }}
{{- range .Values.networkPolicy.egress.wechatPorts }}
{{- $ports = append $ports (int64 .) }}
{{- end }}
{{- if .Values.proxy.httpsProxy }}
{{- $ports = append $ports (include "wechat-token-operator.port" .Values.proxy.httpsProxy | int64) }}
{{- else if not $ports }}
{{- range .Values.wechat.endpoints | default (list "https://") }}
{{- $ports = append $ports (include "wechat-token-operator.port" . | int64) }}
{{- end }}
{{- end }}
{{- toJson (uniq $ports) }}
{{- end }}

{{/*
The name of the Lease, or nothing if it cannot be known. The operator makes it from what it serves. A label selector has a normal form,
which only one of the form key=value certainly has.
*/}}
{{- define "wechat-token-operator.leaseName" -}}
{{- $selector := .Values.watch.labelSelector }}
{{- $name := printf "wechat-token-operator-%s" (printf "%s\n%s" $selector (.Values.watch.namespaces | sortAlpha | join ",") | sha256sum | trunc 8) }}
{{- if not (regexMatch "^([A-Za-z0-9./_-]+=[A-Za-z0-9._-]+)?$" $selector) }}
{{- $name = "" }}
{{- end }}
{{- range .Values.extraArgs }}
{{- if regexMatch "^--?(namespaces|watch-label-selector|leader-election-id)" . }}
{{- /* A flag that is given twice counts as it is given last, and $(NAME) stands for a variable. */}}
{{- $name = regexFind "^--?leader-election-id=[a-z0-9.-]+$" . | splitList "=" | last }}
{{- end }}
{{- end }}
{{- $name }}
{{- end }}

{{/* The rules of the operator's role, as generated from the code. */}}
{{- define "wechat-token-operator.rules" -}}
{{- toYaml (.Files.Get "files/rbac/role.yaml" | fromYaml).rules }}
{{- end }}

{{- define "wechat-token-operator.metricsPortName" -}}
{{- ternary "https" "http" .Values.metrics.secure }}
{{- end }}

{{/* A Service's name has at most 63 characters. */}}
{{- define "wechat-token-operator.metricsServiceName" -}}
{{- $name := printf "%s-controller-manager-metrics-service" (include "wechat-token-operator.fullname" .) }}
{{- if gt (len $name) 63 }}
{{- $name = printf "%s-metrics" (include "wechat-token-operator.fullname" .) }}
{{- end }}
{{- $name }}
{{- end }}

{{- define "wechat-token-operator.gatewayName" -}}
{{- printf "%s-gateway" (include "wechat-token-operator.fullname" .) }}
{{- end }}

{{- define "wechat-token-operator.gatewayServiceAccountName" -}}
{{- if .Values.gateway.serviceAccount.create }}
{{- default (include "wechat-token-operator.gatewayName" .) .Values.gateway.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.gateway.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "wechat-token-operator.gatewaySelectorLabels" -}}
app.kubernetes.io/name: {{ include "wechat-token-operator.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
control-plane: gateway
{{- end }}

{{/* The Secret with the certificate that callers are served with; nothing without TLS. */}}
{{- define "wechat-token-operator.gatewayCertificate" -}}
{{- with .Values.gateway.tls }}
{{- if not .insecure }}
{{- default (ternary (printf "%s-cert" $.Values.gateway.service.name) "" .certManager.enabled) .secretName }}
{{- end }}
{{- end }}
{{- end }}

{{/* The Secret with the authority of that certificate; nothing where programs need none. */}}
{{- define "wechat-token-operator.gatewayCA" -}}
{{- if and .Values.gateway.enabled .Values.gateway.tls.privateCA }}
{{- include "wechat-token-operator.gatewayCertificate" . }}
{{- end }}
{{- end }}

{{- define "wechat-token-operator.gatewayURL" -}}
{{- $scheme := ternary "http" "https" .Values.gateway.tls.insecure }}
{{- default (printf "%s://%s.%s.svc" $scheme .Values.gateway.service.name .Release.Namespace) .Values.gateway.url }}
{{- end }}

{{- define "wechat-token-operator.gatewayArgs" -}}
{{- $args := list "--bind-address=:8080" (printf "--metrics-bind-address=%s" (ternary (printf ":%d" (int64 .Values.metrics.port)) "0" .Values.metrics.enabled))
  "--health-probe-bind-address=:8081" }}
{{- $certificate := include "wechat-token-operator.gatewayCertificate" . }}
{{- if $certificate }}
{{- $args = concat $args (list "--tls-cert-file=/etc/gateway-cert/tls.crt" "--tls-key-file=/etc/gateway-cert/tls.key") }}
{{- end }}
{{- if .Values.metrics.enabled }}
{{- if not .Values.metrics.secure }}
{{- $args = append $args "--metrics-secure=false" }}
{{- else if $certificate }}
{{- $args = append $args "--metrics-cert-path=/etc/gateway-cert" }}
{{- end }}
{{- end }}
{{- with .Values.gateway.namespaces }}
{{- $args = append $args (printf "--namespaces=%s" (join "," .)) }}
{{- end }}
{{- with .Values.gateway.tokenAudience }}
{{- $args = append $args (printf "--token-audience=%s" .) }}
{{- end }}
{{- if ne .Values.gateway.auditLog "-" }}
{{- $args = append $args (printf "--audit-log=%s" .Values.gateway.auditLog) }}
{{- end }}
{{- with .Values.wechat.endpoints }}
{{- $args = append $args (printf "--wechat-endpoints=%s" (join "," .)) }}
{{- end }}
{{- if include "wechat-token-operator.caConfigMap" . }}
{{- $args = append $args (printf "--wechat-ca-file=/etc/wechat-ca/%s" .Values.wechat.caBundle.key) }}
{{- end }}
{{- $args = concat $args (include "wechat-token-operator.logArgs" . | fromJsonArray) }}
{{- toYaml (concat $args .Values.gateway.extraArgs) }}
{{- end }}

{{/* The ports of a NetworkPolicy for DNS, the API server and WeChat, and more rules: what operator and gateway may reach. */}}
{{- define "wechat-token-operator.egressRules" -}}
# DNS
- ports:
  {{- range .Values.networkPolicy.egress.dnsPorts }}
  - protocol: UDP
    port: {{ int64 . }}
  - protocol: TCP
    port: {{ int64 . }}
  {{- end }}
# The API server, and WeChat or a proxy
- ports:
  {{- $ports := list }}
  {{- range .Values.networkPolicy.egress.apiServerPorts }}
  {{- $ports = append $ports (printf "%d" (int64 .)) }}
  {{- end }}
  {{- range include "wechat-token-operator.wechatPorts" . | fromJsonArray }}
  {{- $ports = append $ports (printf "%d" (int64 .)) }}
  {{- end }}
  {{- range uniq $ports }}
  - protocol: TCP
    port: {{ . }}
  {{- end }}
{{- with .Values.networkPolicy.egress.extra }}
{{ toYaml . }}
{{- end }}
{{- end }}
