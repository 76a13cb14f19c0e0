{{/* SPDX-License-Identifier: Apache-2.0 */}}

{{- define "wechat-token-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* The prefix of all names. 40 characters, because the longest suffix has 23 and a label's value at most 63. */}}
{{- define "wechat-token-operator.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if .Values.fullnameOverride }}
{{- $name = .Values.fullnameOverride }}
{{- else if not (contains $name .Release.Name) }}
{{- $name = printf "%s-%s" .Release.Name $name }}
{{- else }}
{{- $name = .Release.Name }}
{{- end }}
{{- $name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* The prefix of names that the whole cluster shares: two releases of one name may be in two namespaces. */}}
{{- define "wechat-token-operator.clusterName" -}}
{{- $name := include "wechat-token-operator.fullname" . }}
{{- if eq .Release.Namespace (printf "%s-system" $name) }}
{{- $name }}
{{- else }}
{{- printf "%s-%s" $name .Release.Namespace | trunc 200 | trimSuffix "-" }}
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
app.kubernetes.io/name: {{ include "wechat-token-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
control-plane: controller-manager
{{- end }}

{{- define "wechat-token-operator.labels" -}}
{{- with .Values.commonLabels }}
{{- toYaml . }}
{{ end -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ include "wechat-token-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: wechat-token-operator
app.kubernetes.io/managed-by: {{ .Release.Service }}
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

{{- define "wechat-token-operator.args" -}}
- --leader-elect
- --metrics-bind-address={{ if .Values.metrics.enabled }}:{{ .Values.metrics.port }}{{ else }}0{{ end }}
- --health-probe-bind-address=:8081
{{- if and .Values.metrics.enabled (not .Values.metrics.secure) }}
- --metrics-secure=false
{{- end }}
{{- with .Values.watch.namespaces }}
- --namespaces={{ join "," . }}
{{- end }}
{{- with .Values.watch.labelSelector }}
- {{ printf "--watch-label-selector=%s" . | quote }}
{{- end }}
{{- if .Values.requireCredentialsLabel }}
- --require-credentials-label
{{- end }}
{{- if .Values.promptDelivery.enabled }}
- --prompt-delivery
{{- end }}
{{- with .Values.wechat.endpoints }}
- --wechat-endpoints={{ join "," . }}
{{- end }}
{{- if include "wechat-token-operator.caConfigMap" . }}
- --wechat-ca-file=/etc/wechat-ca/{{ .Values.wechat.caBundle.key }}
{{- end }}
{{- range .Values.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end }}

{{/* A proxy is for WeChat alone: the API server, whose address Kubernetes puts into the environment, is called directly. */}}
{{- define "wechat-token-operator.env" -}}
{{- with .Values.proxy }}
{{- if or .httpsProxy .secretName }}
- name: HTTPS_PROXY
  {{- if .secretName }}
  valueFrom:
    secretKeyRef:
      name: {{ .secretName }}
      key: {{ .secretKey }}
  {{- else }}
  value: {{ .httpsProxy | quote }}
  {{- end }}
- name: NO_PROXY
  value: {{ prepend .noProxy "$(KUBERNETES_SERVICE_HOST)" | join "," | quote }}
{{- end }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
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
