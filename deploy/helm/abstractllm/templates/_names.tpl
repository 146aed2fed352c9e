{{/* The name of the chart's objects: the release's, and the chart's unless the release has it already. */}}
{{- define "abstractllm.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- $full = default $full .Values.fullnameOverride -}}
{{- /* There is room for what the names of single objects end with. Of names that only end differently a hash stays. */ -}}
{{- if gt (len $full) 52 -}}
{{- $full = printf "%s-%s" ($full | trunc 43 | trimAll "-.") ($full | sha256sum | trunc 8) -}}
{{- end -}}
{{ $full }}
{{- end }}

{{/* Of the metadata of every object: a name, which begins with that of all, and the namespace. */}}
{{- define "abstractllm.named" -}}
{{- $context := index . 0 -}}
name: {{ printf "%s%s" (include "abstractllm.fullname" $context) (index . 1) | quote }}
namespace: {{ $context.Release.Namespace | quote }}
{{- end }}

{{/* The labels that pods are selected by, which never change. */}}
{{- define "abstractllm.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* The labels of every object. */}}
{{- define "abstractllm.labels" -}}
{{ include "abstractllm.labelsAnd" (list . (dict)) }}
{{- end }}

{{/* The same, and further ones, each once: of several with one name the one that is said for the object counts. */}}
{{- define "abstractllm.labelsAnd" -}}
{{- $context := index . 0 -}}
{{- $labels := include "abstractllm.selectorLabels" $context | fromYaml -}}
{{- $_ := set $labels "app.kubernetes.io/version" $context.Chart.AppVersion -}}
{{- $_ := set $labels "app.kubernetes.io/managed-by" $context.Release.Service -}}
{{- $chart := printf "%s-%s" $context.Chart.Name $context.Chart.Version | replace "+" "_" -}}
{{- $_ := set $labels "helm.sh/chart" ($chart | trunc 63 | trimSuffix "-") -}}
{{- range $table := list $context.Values.commonLabels (index . 1) -}}
{{- range $name, $value := $table -}}
{{- $_ := set $labels $name $value -}}
{{- end -}}
{{- end -}}
{{ toYaml $labels }}
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
{{- concat $names (list (printf "%s.%s.svc.cluster.local" $name .Release.Namespace)) (default (list) .Values.tls.certManager.dnsNames) | uniq | toYaml -}}
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
