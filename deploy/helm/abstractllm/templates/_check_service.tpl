{{/* What the shared service alone can be told wrongly: its end, its number of pods, who reads its metrics. */}}
{{- define "abstractllm.check.service" -}}
{{- $faults := list -}}
{{- if eq .Values.form "service" -}}
{{- $drain := .Values.drain -}}
{{- $needed := add $drain.preStopSeconds $drain.graceSeconds 2 -}}
{{- if not (kindIs "invalid" $drain.terminationGracePeriodSeconds) -}}
{{- if lt ($drain.terminationGracePeriodSeconds | int) ($needed | int) -}}
{{- $faults = append $faults (printf "drain.terminationGracePeriodSeconds: is %d, and preStopSeconds (%d), graceSeconds (%d) and two need %d; answers would be cut off" ($drain.terminationGracePeriodSeconds | int) ($drain.preStopSeconds | int) ($drain.graceSeconds | int) $needed) -}}
{{- end -}}
{{- end -}}
{{- with (default (dict) .Values.strategy).rollingUpdate -}}
{{- $none := list "0" "0%" -}}
{{- if and (ne (toString $.Values.strategy.type) "Recreate") (has (toString .maxSurge) $none) (has (toString .maxUnavailable) $none) -}}
{{- $faults = append $faults "strategy.rollingUpdate: maxSurge and maxUnavailable are both 0, so that no pod could ever be replaced" -}}
{{- end -}}
{{- end -}}
{{- if ge (.Values.minReadySeconds | int) (.Values.progressDeadlineSeconds | int) -}}
{{- $faults = append $faults (printf "minReadySeconds: is %d, and must be less than progressDeadlineSeconds, %d" (.Values.minReadySeconds | int) (.Values.progressDeadlineSeconds | int)) -}}
{{- end -}}
{{- if and .Values.networkPolicy.enabled (not .Values.networkPolicy.callers) -}}
{{- $faults = append $faults "networkPolicy.callers: lets nobody in; name those who may call, or {podSelector: {}} for the namespace" -}}
{{- end -}}
{{- end -}}
{{ toJson $faults }}
{{- end }}

{{- define "abstractllm.check.scaling" -}}
{{- $faults := list -}}
{{- if eq .Values.form "service" -}}
{{- with .Values.autoscaling -}}
{{- if .enabled -}}
{{- if not (kindIs "invalid" $.Values.replicas) -}}
{{- $faults = append $faults "replicas: is the autoscaler's business; leave it out, or autoscaling.enabled" -}}
{{- end -}}
{{- if gt (.minReplicas | int) (.maxReplicas | int) -}}
{{- $faults = append $faults (printf "autoscaling.minReplicas: is %d, more than maxReplicas, %d" (.minReplicas | int) (.maxReplicas | int)) -}}
{{- end -}}
{{- if not $.Values.monitoring.enabled -}}
{{- $faults = append $faults "autoscaling: the metric of the waiting requests is read from the monitoring port; set monitoring.enabled" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with .Values.autoscaling -}}
{{- if and .enabled (hasKey (get (default (dict) .behavior) "scaleDown" | default (dict)) "stabilizationWindowSeconds") -}}
{{- $faults = append $faults "autoscaling.behavior: scaleDown.stabilizationWindowSeconds is set by autoscaling.scaleDownSeconds" -}}
{{- end -}}
{{- end -}}
{{- with .Values.podDisruptionBudget -}}
{{- if and .enabled (not (kindIs "invalid" .minAvailable)) -}}
{{- if not (kindIs "invalid" .maxUnavailable) -}}
{{- $faults = append $faults "podDisruptionBudget: set minAvailable or maxUnavailable, not both" -}}
{{- end -}}
{{- $pods := ternary $.Values.autoscaling.minReplicas (ternary 1 $.Values.replicas (kindIs "invalid" $.Values.replicas)) $.Values.autoscaling.enabled | int -}}
{{- $kept := .minAvailable -}}
{{- if kindIs "string" .minAvailable -}}
{{- /* Kubernetes rounds up. */ -}}
{{- $kept = div (add (mul $pods (.minAvailable | trimSuffix "%" | atoi)) 99) 100 -}}
{{- end -}}
{{- if and (gt $pods 0) (ge ($kept | int) $pods) -}}
{{- $faults = append $faults (printf "podDisruptionBudget.minAvailable: is %v of %d, so that no pod could ever be evicted and no node drained" .minAvailable $pods) -}}
{{- end -}}
{{- end -}}
{{- if and .enabled (has (toString .maxUnavailable) (list "0" "0%")) -}}
{{- $faults = append $faults (printf "podDisruptionBudget.maxUnavailable: is %v, so that no pod could ever be evicted and no node drained" .maxUnavailable) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{ toJson $faults }}
{{- end }}

{{- define "abstractllm.check.monitoring" -}}
{{- $faults := list -}}
{{- if eq .Values.form "service" -}}
{{- $monitor := .Values.monitoring.serviceMonitor -}}
{{- $policy := .Values.networkPolicy -}}
{{- if and $monitor.enabled (not .Values.monitoring.enabled) -}}
{{- $faults = append $faults "monitoring.serviceMonitor: there is nothing to scrape; set monitoring.enabled" -}}
{{- end -}}
{{- if and $monitor.enabled (gt (include "abstractllm.milliseconds" $monitor.scrapeTimeout | int64) (include "abstractllm.milliseconds" $monitor.interval | int64)) -}}
{{- $faults = append $faults (printf "monitoring.serviceMonitor.scrapeTimeout: is %s, and may not be more than interval, %s: Prometheus would leave the ServiceMonitor out" $monitor.scrapeTimeout $monitor.interval) -}}
{{- end -}}
{{- if and $policy.enabled $policy.scrapers (not .Values.monitoring.enabled) -}}
{{- $faults = append $faults "networkPolicy.scrapers: there is nothing to scrape; set monitoring.enabled" -}}
{{- end -}}
{{- if and $policy.enabled (not $policy.scrapers) -}}
{{- if $monitor.enabled -}}
{{- $faults = append $faults "networkPolicy.scrapers: lets nobody in, so that Prometheus could not scrape what monitoring.serviceMonitor tells it to; name its pods" -}}
{{- else if .Values.autoscaling.enabled -}}
{{- $faults = append $faults "networkPolicy.scrapers: lets nobody in, so that Prometheus could not scrape what the autoscaler counts; name its pods" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{ toJson $faults }}
{{- end }}

{{/* A duration as `1h30m` in milliseconds. */}}
{{- define "abstractllm.milliseconds" -}}
{{- $units := dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 "d" 86400000 -}}
{{- $sum := 0 -}}
{{- range regexFindAll "[0-9]+[a-z]+" . -1 -}}
{{- $sum = add $sum (mul (regexFind "[0-9]+" . | atoi) (get $units (regexFind "[a-z]+" .))) -}}
{{- end -}}
{{ $sum }}
{{- end }}
