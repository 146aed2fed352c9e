{{/* Refuses values that contradict each other, or that the server would refuse; tells all of them at once. */}}
{{- define "abstractllm.check" -}}
{{- $faults := list -}}
{{- range list "names" "llms" "access" "container" "models" "service" "scaling" "monitoring" "sidecar" -}}
{{- $faults = concat $faults (include (printf "abstractllm.check.%s" .) $ | fromJsonArray) -}}
{{- end -}}
{{- if $faults -}}
{{- fail (printf "\n\nthe values cannot be used:\n  - %s\n" (join "\n  - " $faults)) -}}
{{- end -}}
{{- end }}

{{- define "abstractllm.check.names" -}}
{{- $faults := list -}}
{{- $name := include "abstractllm.fullname" . -}}
{{- if and (eq .Values.form "service") (not (regexMatch "^[a-z][-a-z0-9]*$" $name)) -}}
{{- $faults = append $faults (printf "fullnameOverride: a Service cannot be named %q: it begins with a letter, and has letters, digits and - alone; set another name" $name) -}}
{{- else if not (regexMatch "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$" $name) -}}
{{- $faults = append $faults (printf "nameOverride: objects cannot be named %q, with the chart's name or alias in it: there may be small letters, digits, - and . alone; set another name" $name) -}}
{{- end -}}
{{- range $table := list "commonLabels" "podLabels" -}}
{{- range $name := list "app.kubernetes.io/name" "app.kubernetes.io/instance" -}}
{{- if hasKey (get $.Values $table | default (dict)) $name -}}
{{- $faults = append $faults (printf "%s: %s is what the pods are selected by; see nameOverride" $table $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $name := keys (include "abstractllm.checksums" . | fromYaml) -}}
{{- if hasKey (default (dict) $.Values.podAnnotations) $name -}}
{{- $faults = append $faults (printf "podAnnotations: %s is set by this chart" $name) -}}
{{- end -}}
{{- end -}}
{{ toJson $faults }}
{{- end }}

{{- define "abstractllm.check.llms" -}}
{{- $faults := list -}}
{{- $llms := include "abstractllm.llms" . | fromJson -}}
{{- $names := keys $llms | sortAlpha -}}
{{- if and (gt (len $names) 1) (not .Values.default) -}}
{{- $faults = append $faults (printf "default: say which of %s is meant by an empty name; Helm does not keep their order" (join ", " $names)) -}}
{{- end -}}
{{- if and .Values.default (not (has .Values.default $names)) -}}
{{- $faults = append $faults (printf "default: no LLM is named %q; there are %s" .Values.default (join ", " $names)) -}}
{{- end -}}
{{- range $name := .Values.preload -}}
{{- if not (has $name $names) -}}
{{- $faults = append $faults (printf "preload: no LLM is named %q; there are %s" $name (join ", " $names)) -}}
{{- end -}}
{{- end -}}
{{- range $name, $llm := $llms -}}
{{- if not (kindIs "map" $llm) -}}
{{- $faults = append $faults (printf "llms.%s: must be a table of keys, as {provider: openai, model: gpt-5.4-mini}" $name) -}}
{{- else if not $llm.provider -}}
{{- $faults = append $faults (printf "llms.%s.provider: is missing" $name) -}}
{{- else -}}
{{- if and $llm.api_key (not (contains "${" (toString $llm.api_key | replace "$$" ""))) -}}
{{- $faults = append $faults (printf "llms.%s.api_key: everybody who may read ConfigMaps would read it; put it into providerKeys, and write ${VARIABLE}" $name) -}}
{{- end -}}
{{- if kindIs "map" $llm.extra_headers -}}
{{- range $header, $value := $llm.extra_headers -}}
{{- if and (regexMatch "(?i)authorization|key|token|secret|cookie" $header) (not (contains "${" (toString $value | replace "$$" ""))) -}}
{{- $faults = append $faults (printf "llms.%s.extra_headers: everybody who may read ConfigMaps would read %s; put it into providerKeys, and write ${VARIABLE}" $name $header) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (eq $.Values.image.variant "slim") (eq (toString $llm.provider) "huggingface") -}}
{{- $faults = append $faults (printf "image.variant: slim has no PyTorch, which llms.%s (provider huggingface) needs; take cpu or cuda" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.providerKeys.existingSecret .Values.providerKeys.values -}}
{{- $faults = append $faults "providerKeys: set existingSecret or values, not both" -}}
{{- end -}}
{{- if not (or .Values.providerKeys.existingSecret .Values.extraEnvFrom) -}}
{{- $known := keys (default (dict) .Values.providerKeys.values) -}}
{{- range .Values.extraEnv -}}
{{- $known = append $known .name -}}
{{- end -}}
{{- $text := toJson (dict "llms" $llms "server" .Values.server) | replace "$$" "" -}}
{{- range regexFindAll "\\$\\{[A-Za-z_][A-Za-z0-9_]*\\}" $text -1 | uniq -}}
{{- $variable := . | trimPrefix "${" | trimSuffix "}" -}}
{{- if not (has $variable $known) -}}
{{- $faults = append $faults (printf "llms: ${%s} is set by nothing; set providerKeys.existingSecret, providerKeys.values.%s or extraEnv" $variable $variable) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{ toJson $faults }}
{{- end }}

{{- define "abstractllm.check.access" -}}
{{- $faults := list -}}
{{- $auth := .Values.auth -}}
{{- $tls := .Values.tls -}}
{{- $hasTokens := or $auth.tokens.existingSecret $auth.tokens.file -}}
{{- $hasTls := or $tls.existingSecret $tls.certManager.enabled -}}
{{- if and $auth.tokens.existingSecret $auth.tokens.file -}}
{{- $faults = append $faults "auth.tokens: set existingSecret or file, not both" -}}
{{- end -}}
{{- if and $auth.tokens.file (not (regexMatch "(?m)^\\x{FEFF}?\\s*([0-9a-fA-F]{64}\\s+(inference|admin)\\b|none\\s*(#.*)?$)" $auth.tokens.file)) -}}
{{- $faults = append $faults "auth.tokens.file: has no line as `abstractllm token create --file` writes it: a SHA-256 and a role" -}}
{{- end -}}
{{- /* A line is not repeated here: it may hold a token that was not hashed. */ -}}
{{- range $index, $line := splitList "\n" (default "" $auth.tokens.file | trimPrefix "\uFEFF") -}}
{{- if not (regexMatch "^\\s*([0-9a-fA-F]{64}\\s+(inference|admin)(\\s.*)?|none\\s*)?(#.*)?$" ($line | trimSuffix "\r")) -}}
{{- $faults = append $faults (printf "auth.tokens.file: line %d is no SHA-256 and role, as `abstractllm token create --file` writes them" (add $index 1)) -}}
{{- else if regexMatch "(?i)^[^#]*\\sexpires=" (regexReplaceAll "^([^#]*?\\s(inference|admin))\\s+expires=[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ]?[0-9:.+zZ-]*)(\\s|#|$)" $line "$1 $4") -}}
{{- $faults = append $faults (printf "auth.tokens.file: line %d has an expires= that is no date, or does not follow the role" (add $index 1)) -}}
{{- end -}}
{{- end -}}
{{- if and $tls.existingSecret $tls.certManager.enabled -}}
{{- $faults = append $faults "tls: set existingSecret or certManager.enabled, not both" -}}
{{- end -}}
{{- with $tls.certManager -}}
{{- if and .enabled (le (include "abstractllm.milliseconds" .duration | int64) (include "abstractllm.milliseconds" .renewBefore | int64)) -}}
{{- $faults = append $faults (printf "tls.certManager.renewBefore: is %s, and must be less than duration, %s" .renewBefore .duration) -}}
{{- end -}}
{{- end -}}
{{- if and $tls.certManager.enabled (not $tls.certManager.issuerRef.name) -}}
{{- $faults = append $faults "tls.certManager.issuerRef: name the issuer: {kind: ClusterIssuer, name: ...}" -}}
{{- end -}}
{{- if eq .Values.form "service" -}}
{{- if not (or $auth.insecure $hasTokens $tls.clientCA.existingSecret) -}}
{{- $faults = append $faults "auth: say who may call: auth.tokens.existingSecret or auth.tokens.file, tls.clientCA.existingSecret, or auth.insecure: true, with which everybody who reaches the service may do everything" -}}
{{- end -}}
{{- if and $auth.insecure (or $hasTokens $tls.clientCA.existingSecret) -}}
{{- $faults = append $faults "auth.insecure: contradicts the credentials that are asked for; leave one of the two out" -}}
{{- end -}}
{{- if and $tls.clientCA.existingSecret (not $hasTls) -}}
{{- $faults = append $faults "tls.clientCA: callers bring certificates only over TLS; set tls.existingSecret or tls.certManager" -}}
{{- end -}}
{{- if and $tls.clientCA.existingSecret (not $tls.subjects) (not $hasTokens) -}}
{{- $faults = append $faults "tls.clientCA: callers need roles; set tls.subjects for their certificates, or auth.tokens" -}}
{{- end -}}
{{- if and $tls.subjects (not $tls.clientCA.existingSecret) -}}
{{- $faults = append $faults "tls.subjects: callers bring certificates only if tls.clientCA.existingSecret is set" -}}
{{- end -}}
{{- $subjects := list -}}
{{- range $tls.subjects -}}
{{- if has .name $subjects -}}
{{- $faults = append $faults (printf "tls.subjects: %s is there twice" .name) -}}
{{- end -}}
{{- $subjects = append $subjects .name -}}
{{- end -}}
{{- else -}}
{{- if $auth.insecure -}}
{{- $faults = append $faults "auth.insecure: a sidecar's unix socket needs no credentials; leave it out" -}}
{{- end -}}
{{- if or $hasTls $tls.clientCA.existingSecret $tls.subjects -}}
{{- $faults = append $faults "tls: a unix socket cannot have TLS; leave it out for a sidecar" -}}
{{- end -}}
{{- end -}}
{{ toJson $faults }}
{{- end }}

{{- define "abstractllm.check.container" -}}
{{- $faults := list -}}
{{- $count := .Values.gpu.count | int -}}
{{- if and (eq .Values.image.variant "cuda") (eq $count 0) -}}
{{- $faults = append $faults "gpu.count: is 0, and image.variant cuda needs one or more; or take the variant cpu" -}}
{{- end -}}
{{- if and (ne .Values.image.variant "cuda") (gt $count 0) -}}
{{- $faults = append $faults (printf "gpu.count: is %d, and image.variant %s uses none; take cuda" $count .Values.image.variant) -}}
{{- end -}}
{{- range $kind, $resources := .Values.resources -}}
{{- if and (kindIs "map" $resources) (hasKey $resources $.Values.gpu.resource) -}}
{{- $faults = append $faults (printf "resources.%s: %s is set by gpu.count" $kind $.Values.gpu.resource) -}}
{{- end -}}
{{- end -}}
{{- range $name, $request := default (dict) (default (dict) .Values.resources).requests -}}
{{- $limit := get (default (dict) $.Values.resources.limits) $name -}}
{{- if not (or (kindIs "invalid" $request) (has $limit (list nil ""))) -}}
{{- if gt (include "abstractllm.quantity" $request | float64) (include "abstractllm.quantity" $limit | float64) -}}
{{- $faults = append $faults (printf "resources.requests.%s: is %v, more than resources.limits.%s, %v; set both" $name $request $name $limit) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- /* Of the pod's and the container's value of one name the container's counts, false and 0 included. */ -}}
{{- $context := dict -}}
{{- range $table := list (ternary .Values.podSecurityContext (dict) (eq .Values.form "service")) .Values.securityContext -}}
{{- range $name, $value := $table -}}
{{- if not (kindIs "invalid" $value) -}}
{{- $_ := set $context $name $value -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $context.runAsNonRoot (eq (toString $context.runAsUser) "0") -}}
{{- $faults = append $faults "securityContext.runAsUser: is 0, which runAsNonRoot keeps from running; set securityContext.runAsNonRoot: false, or another user" -}}
{{- end -}}
{{- /* Where no user is said, the cluster may choose one, and the group of the files, as OpenShift does. */ -}}
{{- $reads := and (eq .Values.form "service") (or (include "abstractllm.tokensSecret" .) (include "abstractllm.tlsSecret" .)) -}}
{{- if and $reads $context.runAsUser $context.runAsGroup (not (hasKey $context "fsGroup")) -}}
{{- $faults = append $faults "podSecurityContext.fsGroup: is needed, so that the server's user can read tokens and certificates" -}}
{{- end -}}
{{- $ports := list (.Values.ports.grpc | int) (.Values.ports.health | int) (.Values.ports.monitoring | int) -}}
{{- if and (eq .Values.form "service") (ne (len ($ports | uniq)) 3) -}}
{{- $faults = append $faults (printf "ports: grpc, health and monitoring need three ports, not %d, %d and %d" (index $ports 0) (index $ports 1) (index $ports 2)) -}}
{{- else if eq (index $ports 1) (index $ports 2) -}}
{{- $faults = append $faults (printf "ports: health and monitoring need two ports, not %d twice" (index $ports 1)) -}}
{{- end -}}
{{- $volumes := list -}}
{{- range include "abstractllm.volumes" . | fromYamlArray -}}
{{- if has .name $volumes -}}
{{- $faults = append $faults (printf "extraVolumes: %s is the name of a volume of this chart, or is there twice" .name) -}}
{{- end -}}
{{- $volumes = append $volumes .name -}}
{{- end -}}
{{- $paths := list -}}
{{- range include "abstractllm.mounts" . | fromYamlArray -}}
{{- if has .mountPath $paths -}}
{{- $faults = append $faults (printf "extraVolumeMounts: two volumes would be mounted at %s; see also models.image.mountPath and sidecar.folder" .mountPath) -}}
{{- end -}}
{{- /* The volume of a sidecar may be one of its pod's, which another chart makes. */ -}}
{{- if and (eq $.Values.form "service") (not (has .name $volumes)) -}}
{{- $faults = append $faults (printf "extraVolumeMounts: no volume is named %s; see extraVolumes" .name) -}}
{{- end -}}
{{- $paths = append $paths .mountPath -}}
{{- end -}}
{{- $variables := list -}}
{{- range .Values.extraEnv -}}
{{- if has .name (list "ABSTRACTLLM_HEALTH" "ABSTRACTLLM_MONITORING") -}}
{{- $faults = append $faults (printf "extraEnv: %s has no effect, since this chart sets the address" .name) -}}
{{- end -}}
{{- if and (eq .name "HF_HUB_OFFLINE") $.Values.models.offline -}}
{{- $faults = append $faults "extraEnv: HF_HUB_OFFLINE is set by models.offline" -}}
{{- end -}}
{{- if has .name $variables -}}
{{- $faults = append $faults (printf "extraEnv: %s is there twice" .name) -}}
{{- end -}}
{{- $variables = append $variables .name -}}
{{- end -}}
{{ toJson $faults }}
{{- end }}

{{- define "abstractllm.check.models" -}}
{{- $faults := list -}}
{{- $cache := .Values.models.cache -}}
{{- if and $cache.existingClaim $cache.size -}}
{{- $faults = append $faults "models.cache: set existingClaim or size, not both" -}}
{{- end -}}
{{- if and $cache.sizeLimit (or $cache.existingClaim $cache.size) -}}
{{- $faults = append $faults "models.cache.sizeLimit: is of an emptyDir, and the cache is on a claim" -}}
{{- end -}}
{{- if and (include "abstractllm.claimOfOneNode" .) (eq .Values.form "service") -}}
{{- if or .Values.autoscaling.enabled (gt (default 1 .Values.replicas | int) 1) -}}
{{- $faults = append $faults (printf "models.cache.accessModes: several pods cannot share a claim of %s; take ReadWriteMany, or one replica" (join ", " $cache.accessModes)) -}}
{{- end -}}
{{- end -}}
{{- if and $cache.size (not (or (has "ReadWriteOnce" $cache.accessModes) (has "ReadWriteMany" $cache.accessModes) (has "ReadWriteOncePod" $cache.accessModes))) -}}
{{- $faults = append $faults "models.cache.accessModes: nobody could write to the claim that is made; take ReadWriteMany or ReadWriteOnce" -}}
{{- end -}}
{{- with .Values.models.image -}}
{{- if and .subPath (not .reference) -}}
{{- $faults = append $faults "models.image.subPath: is of an image, and models.image.reference names none" -}}
{{- else if and .subPath (semverCompare ">=1.31-0 <1.33-0" $.Capabilities.KubeVersion.Version) -}}
{{- $faults = append $faults (printf "models.image.subPath: needs Kubernetes 1.33; this is %s" $.Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.models.image.reference (semverCompare "<1.31-0" .Capabilities.KubeVersion.Version) -}}
{{- $faults = append $faults (printf "models.image: needs Kubernetes 1.35, or 1.31 with the feature gate ImageVolume; this is %s" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{ toJson $faults }}
{{- end }}

{{- define "abstractllm.check.sidecar" -}}
{{- $faults := list -}}
{{- if eq .Values.form "sidecar" -}}
{{- if not (kindIs "invalid" .Values.replicas) -}}
{{- $faults = append $faults "replicas: a sidecar has those of its pod" -}}
{{- end -}}
{{- if .Values.autoscaling.enabled -}}
{{- $faults = append $faults "autoscaling: a sidecar is scaled with its pod" -}}
{{- end -}}
{{- if .Values.networkPolicy.enabled -}}
{{- $faults = append $faults "networkPolicy: is of the pods that the sidecar is in, which another chart makes" -}}
{{- end -}}
{{- range $name := list "serviceMonitor" "prometheusRule" "dashboard" -}}
{{- if (get $.Values.monitoring $name).enabled -}}
{{- $faults = append $faults (printf "monitoring.%s: is of the shared service; for the pods of another chart take a PodMonitor of its own" $name) -}}
{{- end -}}
{{- end -}}
{{- range $name := list "podAnnotations" "podLabels" "nodeSelector" "tolerations" "affinity" "priorityClassName" "runtimeClassName" -}}
{{- if get $.Values $name -}}
{{- $faults = append $faults (printf "%s: is of the pod that the sidecar is in, which another chart makes" $name) -}}
{{- end -}}
{{- end -}}
{{- if not (kindIs "invalid" .Values.drain.terminationGracePeriodSeconds) -}}
{{- $faults = append $faults "drain.terminationGracePeriodSeconds: is of the pod that the sidecar is in, which another chart makes" -}}
{{- end -}}
{{- range $name := list "minAvailable" "maxUnavailable" -}}
{{- if not (kindIs "invalid" (get $.Values.podDisruptionBudget $name)) -}}
{{- $faults = append $faults (printf "podDisruptionBudget.%s: is of the pods that the sidecar is in, which another chart makes" $name) -}}
{{- end -}}
{{- end -}}
{{- range $name := list "name" "annotations" -}}
{{- if get $.Values.serviceAccount $name -}}
{{- $faults = append $faults (printf "serviceAccount.%s: is of the pod that the sidecar is in, which another chart makes" $name) -}}
{{- end -}}
{{- end -}}
{{- if .Values.image.pullSecrets -}}
{{- $faults = append $faults "image.pullSecrets: are of the pod that the sidecar is in, which another chart makes" -}}
{{- end -}}
{{- if .Values.service.annotations -}}
{{- $faults = append $faults "service.annotations: a sidecar has no Service" -}}
{{- end -}}
{{- if and (eq .Values.sidecar.probes "exec") (eq .Values.sidecar.waitFor "ready") -}}
{{- $faults = append $faults "sidecar.waitFor: the image's check asks only if the server is alive; take sidecar.probes grpc, or waitFor alive" -}}
{{- end -}}
{{- if gt (len (include "abstractllm.socket" .)) 100 -}}
{{- $faults = append $faults "sidecar.folder: is too long; the path of a unix socket may have about 100 characters" -}}
{{- end -}}
{{- end -}}
{{ toJson $faults }}
{{- end }}

{{/* A quantity as `1500m` or `2Gi`, or a number, as a number. */}}
{{- define "abstractllm.quantity" -}}
{{- $units := dict "n" 1e-9 "u" 1e-6 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18 -}}
{{- range $unit, $one := dict "K" 1024.0 "M" 1048576.0 "G" 1073741824.0 "T" 1099511627776.0 "P" 1125899906842624.0 -}}
{{- $_ := set $units (printf "%si" $unit) $one -}}
{{- end -}}
{{- $number := regexFind "^[0-9.]+([eE][-+]?[0-9]+)?" (toString .) -}}
{{- mulf ($number | float64) (get $units (toString . | trimPrefix $number) | default 1) -}}
{{- end }}
