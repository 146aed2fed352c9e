{{/*
The sidecar form, for the pods of another chart. All of these take the context of this chart, which its parent has as
`.Subcharts.abstractllm`:

  spec:
    securityContext:
      {{- include "abstractllm.sidecar.podSecurityContext" .Subcharts.abstractllm | nindent 6 }}
    initContainers:
      {{- include "abstractllm.sidecar" .Subcharts.abstractllm | nindent 6 }}
    containers:
      - name: app
        env:
          {{- include "abstractllm.sidecar.env" .Subcharts.abstractllm | nindent 10 }}
        volumeMounts:
          {{- include "abstractllm.sidecar.volumeMounts" .Subcharts.abstractllm | nindent 10 }}
    volumes:
      {{- include "abstractllm.sidecar.volumes" .Subcharts.abstractllm | nindent 6 }}

and `abstractllm.sidecar.annotations` for the pod template's metadata.
*/}}
{{- define "abstractllm.sidecar" -}}
{{- if ne .Values.form "sidecar" -}}
{{- fail "form: set it to sidecar, in the values of the dependency, where a chart includes abstractllm.sidecar" -}}
{{- end -}}
{{- include "abstractllm.check" . -}}
- name: {{ .Values.sidecar.name | quote }}
  # A native sidecar: it is started before the containers, and ended after them; no Job waits for it.
  restartPolicy: Always
  {{- include "abstractllm.container" . | nindent 2 }}
  {{- include "abstractllm.sidecar.probes" . | nindent 2 }}
{{- end }}

{{- define "abstractllm.sidecar.probes" -}}
{{- $port := .Values.ports.health | int -}}
{{- $probes := .Values.probes -}}
{{- $period := 2 -}}
{{- $failures := max 1 (div (add (.Values.sidecar.startupSeconds | int) 1) $period) -}}
{{- if eq .Values.sidecar.probes "grpc" -}}
startupProbe:
  grpc: {port: {{ $port }}, service: {{ ternary "" "liveness" (eq .Values.sidecar.waitFor "ready") | quote }}}
  periodSeconds: {{ $period }}
  timeoutSeconds: 5
  failureThreshold: {{ $failures }}
livenessProbe:
  grpc: {port: {{ $port }}, service: liveness}
  {{- toYaml $probes.liveness | nindent 2 }}
readinessProbe:
  grpc: {port: {{ $port }}, service: ""}
  {{- toYaml $probes.readiness | nindent 2 }}
{{- else -}}
{{- $command := printf "[/opt/abstractllm/bin/python, -I, /opt/abstractllm/healthcheck.py, \"127.0.0.1:%d\"]" (.Values.ports.monitoring | int) -}}
startupProbe:
  exec: {command: {{ $command }}}
  periodSeconds: {{ $period }}
  timeoutSeconds: 5
  failureThreshold: {{ $failures }}
livenessProbe:
  exec: {command: {{ $command }}}
  {{- toYaml $probes.liveness | nindent 2 }}
{{- end -}}
{{- end }}

{{/* Variables of the container that calls: the address as every client takes it. */}}
{{- define "abstractllm.sidecar.env" -}}
- {name: ABSTRACTLLM_ADDRESS, value: "unix:{{ include "abstractllm.socket" . }}"}
{{- end }}

{{- define "abstractllm.sidecar.volumeMounts" -}}
{{- /* One may call over a folder that is read-only, and nobody can put another socket in its place. */ -}}
- {name: {{ include "abstractllm.volume" . }}socket, mountPath: {{ include "abstractllm.socketFolder" . | quote }}, readOnly: true}
{{- end }}

{{- define "abstractllm.sidecar.volumes" -}}
{{ include "abstractllm.volumes" . }}
{{- end }}

{{/* The group of the socket, which the containers that call need: it is open to its user and its group alone. */}}
{{- define "abstractllm.sidecar.podSecurityContext" -}}
{{- with default (default (dict) .Values.podSecurityContext).fsGroup (default (dict) .Values.securityContext).runAsGroup -}}
supplementalGroups: [{{ . | int }}]
{{- if include "abstractllm.cacheClaim" $ }}
fsGroup: {{ . | int }}
fsGroupChangePolicy: OnRootMismatch
{{- end }}
{{- end }}
{{- end }}

{{- define "abstractllm.sidecar.annotations" -}}
{{ include "abstractllm.checksums" . }}
{{- end }}
