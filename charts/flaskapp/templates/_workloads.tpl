{{/*
The Deployments of a release, as a JSON list: the web pods, then the components. Each has component, name, own (settings of its
pods that win over the ones of all pods), command, args, port (0: none), replicas (null: somebody else scales), autoscaling
(empty: off), rollout, probes, drainSeconds, grace (seconds).
*/}}
{{- define "flaskapp.workloads" -}}
{{- $values := .Values }}
{{- $rollout := $values.rollout }}
{{- $web := dict
  "component" "web" "name" (include "flaskapp.fullname" .) "own" (dict)
  "command" $values.command "args" $values.args "port" $values.port
  "replicas" $values.replicas "autoscaling" (ternary $values.autoscaling (dict) $values.autoscaling.enabled)
  "rollout" $rollout "podDisruptionBudget" $values.podDisruptionBudget
  "probes" (include "flaskapp.probes" (dict "probes" $values.probes "health" $values.health) | fromJson)
  "drainSeconds" $rollout.drainSeconds "grace" (add $rollout.drainSeconds $rollout.gracefulSeconds 5)
}}
{{- $list := list $web }}
{{- range $component, $own := $values.components }}
{{- $port := get $own "port" | default 0 }}
{{- $own = set (deepCopy $own) "env" (get $own "env" | default dict) }}
{{- $drain := ternary $rollout.drainSeconds 0 (gt (int $port) 0) }}
{{- $probes := get $own "probes" | default dict }}
{{- $defaults := ternary (dict "startup" (dict) "liveness" (dict) "readiness" (dict)) (dict) (gt (int $port) 0) }}
{{- $list = append $list (dict
  "component" $component "name" (include "flaskapp.childName" (dict "root" $ "name" $component "limit" 63)) "own" $own
  "command" (get $own "command") "args" (get $own "args") "port" $port
  "replicas" (ternary (get $own "replicas") 1 (hasKey $own "replicas")) "autoscaling" (get $own "autoscaling" | default dict)
  "rollout" (include "flaskapp.overlay" (dict "base" $rollout "over" (get $own "rollout" | default dict)) | fromJson)
  "podDisruptionBudget" $values.podDisruptionBudget
  "probes" (include "flaskapp.probes" (dict "probes" (include "flaskapp.overlay" (dict "base" $defaults "over" $probes) | fromJson) "health" (get $own "health" | default dict)) | fromJson)
  "drainSeconds" $drain "grace" (add $drain (dig "terminationGracePeriodSeconds" 60 $own))) }}
{{- end }}
{{- toJson $list }}
{{- end }}

{{/* What the release is asked for by hand and by `helm test`: the readiness probe's path, or the root. */}}
{{- define "flaskapp.path" -}}
{{- dig "readinessProbe" "httpGet" "path" "/" (include "flaskapp.workloads" . | fromJsonArray | first).probes }}
{{- end }}

{{/*
Probes as the container takes them, as JSON. A probe whose key is missing is none. A handler of the values replaces the
chart's; `httpGet` and `tcpSocket` without a port ask the application's. Arguments: probes, health.
*/}}
{{- define "flaskapp.probes" -}}
{{- $path := get .health "path" }}
{{- $defaults := dict
  "startup" (dict "periodSeconds" 1 "timeoutSeconds" 3 "failureThreshold" 60 "path" $path)
  "liveness" (dict "periodSeconds" 15 "timeoutSeconds" 10 "failureThreshold" 20 "path" (get .health "livenessPath" | default $path))
  "readiness" (dict "periodSeconds" 5 "timeoutSeconds" 5 "failureThreshold" 3 "path" $path)
}}
{{- $result := dict }}
{{- range $kind, $probe := .probes }}
{{- if not (kindIs "invalid" $probe) }}
{{- $default := get $defaults $kind }}
{{- $base := omit $default "path" }}
{{- if not (or (get $probe "exec") (get $probe "grpc") (get $probe "httpGet") (get $probe "tcpSocket")) }}
{{- $_ := set $base (ternary "httpGet" "tcpSocket" (not (empty $default.path))) (ternary (dict "path" $default.path) (dict) (not (empty $default.path))) }}
{{- end }}
{{- $probe = include "flaskapp.overlay" (dict "base" $base "over" $probe) | fromJson }}
{{- range list "httpGet" "tcpSocket" }}
{{- if and (hasKey $probe .) (not (hasKey (get $probe .) "port")) }}
{{- $_ := set (get $probe .) "port" "http" }}
{{- end }}
{{- end }}
{{- $_ := set $result (printf "%sProbe" $kind) $probe }}
{{- end }}
{{- end }}
{{- toJson $result }}
{{- end }}

{{/* Seconds a workload's new pod must be ready before it counts. A port that is open says nothing of the application behind it. */}}
{{- define "flaskapp.minReadySeconds" -}}
{{- $opens := hasKey (get .probes "readinessProbe" | default dict) "tcpSocket" }}
{{- $seconds := .rollout.minReadySeconds }}
{{- ternary (ternary 10 0 $opens) $seconds (kindIs "invalid" $seconds) | int64 }}
{{- end }}

{{/* Pods of a workload at most, without the ones of a rollout. */}}
{{- define "flaskapp.mostPods" -}}
{{- .autoscaling.maxReplicas | default (ternary 1 .replicas (kindIs "invalid" .replicas)) }}
{{- end }}

{{/* Pods of a workload that are there whatever the load. */}}
{{- define "flaskapp.leastPods" -}}
{{- .autoscaling.minReplicas | default (ternary 1 .replicas (kindIs "invalid" .replicas)) }}
{{- end }}
