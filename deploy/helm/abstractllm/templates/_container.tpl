{{/* What both forms have in common: everything of the container but its name, its probes and its hooks. */}}
{{- define "abstractllm.container" -}}
image: {{ include "abstractllm.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [serve, --config, /etc/abstractllm/config/llms.yaml]
{{- $setsTmpdir := false }}
{{- range .Values.extraEnv }}{{ if eq .name "TMPDIR" }}{{ $setsTmpdir = true }}{{ end }}{{ end }}
{{- $ownTmpdir := and (include "abstractllm.cacheClaim" .) (not $setsTmpdir) }}
{{- if or .Values.models.offline .Values.extraEnv $ownTmpdir }}
env:
  {{- if $ownTmpdir }}
  {{- /* The image's own place for temporary files is the folder of the models, which is another pod's, too. */}}
  - {name: TMPDIR, value: /tmp}
  {{- end }}
  {{- if .Values.models.offline }}
  - {name: HF_HUB_OFFLINE, value: "1"}
  {{- end }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- $keys := .Values.providerKeys }}
{{- if or $keys.existingSecret $keys.values .Values.extraEnvFrom }}
envFrom:
  {{- if $keys.existingSecret }}
  - secretRef: {name: {{ $keys.existingSecret | quote }}}
  {{- else if $keys.values }}
  - secretRef: {name: {{ printf "%s-provider-keys" (include "abstractllm.fullname" .) | quote }}}
  {{- end }}
  {{- with .Values.extraEnvFrom }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- $ports := include "abstractllm.containerPorts" . | trim }}
{{- if $ports }}
ports:
  {{- $ports | nindent 2 }}
{{- end }}
resources:
  {{- include "abstractllm.resources" . | nindent 2 }}
{{- with .Values.securityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumeMounts:
  {{- include "abstractllm.mounts" . | nindent 2 }}
{{- end }}

{{- define "abstractllm.containerPorts" -}}
{{- $sidecar := eq .Values.form "sidecar" -}}
{{- $prefix := ternary "llm-" "" $sidecar -}}
{{- if not $sidecar }}
- {name: grpc, containerPort: {{ .Values.ports.grpc | int }}}
{{- end }}
{{- if include "abstractllm.asksHealthPort" . }}
- {name: {{ $prefix }}health, containerPort: {{ .Values.ports.health | int }}}
{{- end }}
{{- if .Values.monitoring.enabled }}
- {name: {{ $prefix }}monitoring, containerPort: {{ .Values.ports.monitoring | int }}}
{{- end }}
{{- end }}

{{- define "abstractllm.resources" -}}
{{- $resources := deepCopy (default (dict) .Values.resources) -}}
{{- if .Values.gpu.count -}}
{{- $limits := merge (dict .Values.gpu.resource (.Values.gpu.count | int)) (default (dict) $resources.limits) -}}
{{- $_ := set $resources "limits" $limits -}}
{{- end -}}
{{ toYaml $resources }}
{{- end }}

{{- define "abstractllm.mounts" -}}
{{- $prefix := include "abstractllm.volume" . -}}
- {name: {{ $prefix }}config, mountPath: /etc/abstractllm/config, readOnly: true}
{{- if include "abstractllm.tokensSecret" . }}
- {name: {{ $prefix }}tokens, mountPath: /etc/abstractllm/tokens, readOnly: true}
{{- end }}
{{- if include "abstractllm.tlsSecret" . }}
- {name: {{ $prefix }}tls, mountPath: /etc/abstractllm/tls, readOnly: true}
{{- if .Values.tls.clientCA.existingSecret }}
- {name: {{ $prefix }}client-ca, mountPath: /etc/abstractllm/client-ca, readOnly: true}
{{- end }}
{{- end }}
{{- if eq .Values.form "sidecar" }}
- {name: {{ $prefix }}socket, mountPath: {{ include "abstractllm.socketFolder" . | quote }}}
{{- end }}
- {name: {{ $prefix }}tmp, mountPath: /tmp}
{{- /* Models, and what is compiled for the GPU: all that the image writes beside /tmp. */}}
- {name: {{ $prefix }}cache, mountPath: /home/abstractllm/.cache/abstractllm}
{{- with .Values.models.image }}
{{- if .reference }}
- name: {{ $prefix }}model-image
  mountPath: {{ .mountPath | quote }}
  readOnly: true
  {{- with .subPath }}
  subPath: {{ . | quote }}
  {{- end }}
{{- end }}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "abstractllm.volumes" -}}
{{- $prefix := include "abstractllm.volume" . -}}
- name: {{ $prefix }}config
  configMap: {name: {{ printf "%s-config" (include "abstractllm.fullname" .) | quote }}}
{{- with include "abstractllm.tokensSecret" . }}
- name: {{ $prefix }}tokens
  {{- /* In a pod without the group of these files; they hold hashes alone. */}}
  secret: {secretName: {{ . | quote }}, defaultMode: {{ ternary "0444" "0440" (eq $.Values.form "sidecar") }}}
{{- end }}
{{- if include "abstractllm.tlsSecret" . }}
- name: {{ $prefix }}tls
  secret: {secretName: {{ include "abstractllm.tlsSecret" . | quote }}, defaultMode: 0440}
{{- with .Values.tls.clientCA.existingSecret }}
- name: {{ $prefix }}client-ca
  secret: {secretName: {{ . | quote }}, defaultMode: 0440}
{{- end }}
{{- end }}
{{- if eq .Values.form "sidecar" }}
- name: {{ $prefix }}socket
  emptyDir: {}
{{- end }}
- name: {{ $prefix }}tmp
  emptyDir: {}
- name: {{ $prefix }}cache
  {{- if include "abstractllm.cacheClaim" . }}
  persistentVolumeClaim: {claimName: {{ include "abstractllm.cacheClaim" . | quote }}}
  {{- else if .Values.models.cache.sizeLimit }}
  emptyDir: {sizeLimit: {{ .Values.models.cache.sizeLimit | quote }}}
  {{- else }}
  emptyDir: {}
  {{- end }}
{{- with .Values.models.image }}
{{- if .reference }}
- name: {{ $prefix }}model-image
  image: {reference: {{ .reference | quote }}, pullPolicy: {{ .pullPolicy }}}
{{- end }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
