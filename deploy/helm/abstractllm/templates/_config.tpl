{{/* The LLMs; the demo model where the values name none. (A default among the values would stay beside others.) */}}
{{- define "abstractllm.llms" -}}
{{- .Values.llms | default (dict "local" (dict "provider" "huggingface" "model" "demo")) | toJson -}}
{{- end }}

{{/* Where the kubelet and the network of pods reach the server. */}}
{{- define "abstractllm.podAddress" -}}
{{- ternary "[::]" "0.0.0.0" .Values.ipv6 -}}
{{- end }}

{{- define "abstractllm.socketFolder" -}}
{{ .Values.sidecar.folder | trimSuffix "/" }}
{{- end }}

{{- define "abstractllm.socket" -}}
{{ include "abstractllm.socketFolder" . }}/abstractllm.sock
{{- end }}

{{- define "abstractllm.listen" -}}
{{- if eq .Values.form "sidecar" -}}
unix://{{ include "abstractllm.socket" . }}
{{- else -}}
{{ include "abstractllm.podAddress" . }}:{{ .Values.ports.grpc | int }}
{{- end -}}
{{- end }}

{{/* True where probes ask the health port, which is then on the pod's address. */}}
{{- define "abstractllm.asksHealthPort" -}}
{{- if or (eq .Values.form "service") (eq .Values.sidecar.probes "grpc") }}true{{ end -}}
{{- end }}

{{- define "abstractllm.monitoringAddress" -}}
{{ ternary (include "abstractllm.podAddress" .) "127.0.0.1" .Values.monitoring.enabled }}:{{ .Values.ports.monitoring | int }}
{{- end }}

{{/* The server's configuration, llms.yaml. */}}
{{- define "abstractllm.config" -}}
{{- $config := deepCopy .Values.server -}}
{{- $llms := include "abstractllm.llms" . | fromJson -}}
{{- $_ := set $config "listen" (include "abstractllm.listen" .) -}}
{{- $_ := set $config "monitoring" (include "abstractllm.monitoringAddress" .) -}}
{{- if include "abstractllm.asksHealthPort" . -}}
{{- $_ := set $config "health" (printf "%s:%d" (include "abstractllm.podAddress" .) (.Values.ports.health | int)) -}}
{{- else -}}
{{- $_ := set $config "health" nil -}}
{{- end -}}
{{- /* Callers who resolve the service's name learn of new pods when they connect anew. */}}
{{- if and (eq .Values.form "service") (not (hasKey $config "max_connection_age")) -}}
{{- $_ := set $config "max_connection_age" "5m" -}}
{{- end -}}
{{- $_ := set $config "grace" (printf "%ds" (.Values.drain.graceSeconds | int)) -}}
{{- $_ := set $config "default" (default (first (keys $llms)) .Values.default) -}}
{{- if not (kindIs "invalid" .Values.preload) -}}
{{- $_ := set $config "preload" .Values.preload -}}
{{- end -}}
{{- if .Values.auth.insecure -}}
{{- $_ := set $config "insecure" true -}}
{{- end -}}
{{- if include "abstractllm.tokensSecret" . -}}
{{- $_ := set $config "tokens" (printf "/etc/abstractllm/tokens/%s" .Values.auth.tokens.key) -}}
{{- end -}}
{{- $_ := set $config "llms" $llms -}}
{{ toYaml $config }}
{{- if include "abstractllm.tlsSecret" . }}
tls:
  certificate: /etc/abstractllm/tls/tls.crt
  key: /etc/abstractllm/tls/tls.key
  {{- with .Values.tls.clientCA }}
  {{- if .existingSecret }}
  client_ca: /etc/abstractllm/client-ca/{{ .key }}
  {{- end }}
  {{- end }}
  {{- with .Values.tls.subjects }}
  subjects:
    {{- range . }}
    {{ .name | toJson }}: {{ .role }}
    {{- end }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Annotations that change with what the server reads at its start alone, so that the pods are replaced then. */}}
{{- define "abstractllm.checksums" -}}
checksum/config: {{ include "abstractllm.config" . | sha256sum }}
{{- with .Values.providerKeys.values }}
checksum/provider-keys: {{ toYaml . | sha256sum }}
{{- end }}
{{- end }}
