{{/* The name of the chart's objects: the release's, and the chart's unless the release has it already. */}}
{{- define "abstractllm.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/* The labels that pods are selected by, which never change. */}}
{{- define "abstractllm.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* The labels of every object. */}}
{{- define "abstractllm.labels" -}}
{{ include "abstractllm.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The beginning of the names of a pod's volumes: the sidecar's name in a pod of another chart, else nothing. */}}
{{- define "abstractllm.volume" -}}
{{- if eq .Values.form "sidecar" }}{{ .Values.sidecar.name }}-{{ end -}}
{{- end }}

{{- define "abstractllm.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "abstractllm.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{/* By digest where there is one; else by the tag, which is the version and, unless it is set, the variant. */}}
{{- define "abstractllm.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else if .tag -}}
{{ .repository }}:{{ .tag }}
{{- else -}}
{{ .repository }}:{{ $.Chart.AppVersion }}{{ if ne .variant "cpu" }}-{{ .variant }}{{ end }}
{{- end -}}
{{- end -}}
{{- end }}

{{/* What the headless service is called by from within the cluster. */}}
{{- define "abstractllm.dnsNames" -}}
{{- $name := include "abstractllm.fullname" . -}}
{{- $names := list $name (printf "%s.%s" $name .Release.Namespace) (printf "%s.%s.svc" $name .Release.Namespace) -}}
{{- concat $names (list (printf "%s.%s.svc.cluster.local" $name .Release.Namespace)) .Values.tls.certManager.dnsNames | uniq | toYaml -}}
{{- end }}

{{- define "abstractllm.tlsSecret" -}}
{{- if .Values.tls.certManager.enabled -}}
{{ include "abstractllm.fullname" . }}-tls
{{- else -}}
{{ .Values.tls.existingSecret }}
{{- end -}}
{{- end }}

{{- define "abstractllm.tokensSecret" -}}
{{- if .Values.auth.tokens.existingSecret -}}
{{ .Values.auth.tokens.existingSecret }}
{{- else if .Values.auth.tokens.file -}}
{{ include "abstractllm.fullname" . }}-tokens
{{- end -}}
{{- end }}

{{/* The claim of the cache of models; empty where it is an emptyDir. */}}
{{- define "abstractllm.cacheClaim" -}}
{{- if .Values.models.cache.existingClaim -}}
{{ .Values.models.cache.existingClaim }}
{{- else if .Values.models.cache.size -}}
{{ include "abstractllm.fullname" . }}-models
{{- end -}}
{{- end }}

{{/* A count, or a percentage in quotes. */}}
{{- define "abstractllm.number" -}}
{{- if kindIs "string" . }}{{ . | quote }}{{ else }}{{ . | int }}{{ end -}}
{{- end }}
