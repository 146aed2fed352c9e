{{/* Alive is asked from the start on, and stays yes while a model loads and while the server drains; ready is not. */}}
{{- define "abstractllm.probes" -}}
{{- $port := .Values.ports.health | int -}}
startupProbe:
  grpc: {port: {{ $port }}, service: liveness}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: {{ max 1 (div (add (.Values.probes.startupSeconds | int) 1) 2) }}
livenessProbe:
  grpc: {port: {{ $port }}, service: liveness}
  {{- toYaml .Values.probes.liveness | nindent 2 }}
readinessProbe:
  grpc: {port: {{ $port }}, service: ""}
  {{- toYaml .Values.probes.readiness | nindent 2 }}
{{- end }}

{{- define "abstractllm.terminationGracePeriodSeconds" -}}
{{- $drain := .Values.drain -}}
{{- if kindIs "invalid" $drain.terminationGracePeriodSeconds -}}
{{ add $drain.preStopSeconds $drain.graceSeconds 5 }}
{{- else -}}
{{ $drain.terminationGracePeriodSeconds | int }}
{{- end -}}
{{- end }}

{{/* True where the claim that this chart makes can be written to from one node alone. */}}
{{- define "abstractllm.claimOfOneNode" -}}
{{- $cache := .Values.models.cache -}}
{{- if and $cache.size (not $cache.existingClaim) -}}
{{- if not (has "ReadWriteMany" $cache.accessModes) }}true{{ end -}}
{{- end -}}
{{- end }}

{{/* Where the pod may be, in which order, and by which runtime. */}}
{{- define "abstractllm.scheduling" -}}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $tolerations := default (list) .Values.tolerations }}
{{- if .Values.gpu.count }}
{{- /* Nodes whose GPUs are counted in parts, as nvidia.com/mig-1g.10gb, have the taint of whole ones. */}}
{{- range ternary (list "nvidia.com/gpu" .Values.gpu.resource) (list .Values.gpu.resource) (hasPrefix "nvidia.com/" .Values.gpu.resource) | uniq }}
{{- $tolerations = append $tolerations (dict "key" . "operator" "Exists" "effect" "NoSchedule") | uniq }}
{{- end }}
{{- end }}
{{- with $tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .Values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- $selector := dict "matchLabels" (include "abstractllm.selectorLabels" . | fromYaml) }}
  {{- range .Values.topologySpreadConstraints }}
  - {{ toYaml (ternary . (set (deepCopy .) "labelSelector" $selector) (hasKey . "labelSelector")) | nindent 4 | trim }}
  {{- end }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .Values.runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}
{{- end }}
