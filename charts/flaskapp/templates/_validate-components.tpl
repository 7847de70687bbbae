{{/* The parts of validate.yaml that are about workloads, volumes, ports and numbers. */}}

{{/* What keys are called; a schema would say it at another path. */}}
{{- define "flaskapp.validateNames" -}}
{{- $values := .Values }}
{{- $variables := dict "config" $values.config "secrets.values" $values.secrets.values "env" $values.env "database.owner.env" $values.database.owner.env }}
{{- range $section, $limit := dict "components" 30 "persistence" 30 "cronJobs" 52 }}
{{- range $name, $own := get $values $section }}
{{- if not (and (le (len $name) $limit) (regexMatch "^[a-z]([a-z0-9-]*[a-z0-9])?$" $name)) }}
{{- fail (printf "%s.%s: not a name for Kubernetes; use at most %d small letters, digits and dashes, and begin with a letter" $section $name $limit) }}
{{- end }}
{{- $_ := set $variables (printf "%s.%s.env" $section $name) (get $own "env" | default dict) }}
{{- end }}
{{- end }}
{{- range $section, $settings := $variables }}
{{- range $name, $_ := $settings }}
{{- if not (regexMatch "^[A-Za-z_][A-Za-z0-9_.-]*$" $name) }}
{{- fail (printf "%s.%s: not the name of a variable; use letters, digits and underscores, and begin with no digit" $section $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- range $path, $_ := $values.files }}
{{- if not (regexMatch "^/[A-Za-z0-9._/-]+$" $path) }}
{{- fail (printf "files.%s: not an absolute path; begin with a slash, and use letters, digits, dots, dashes and underscores" $path) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Every Deployment: the web pods, whose values are at the top, and the components. */}}
{{- define "flaskapp.validateWorkloads" -}}
{{- range include "flaskapp.workloads" . | fromJsonArray }}
{{- $at := ternary "" (printf "components.%s." .component) (eq .component "web") }}
{{- $requests := get (include "flaskapp.podSettings" (dict "root" $ "own" .own) | fromJson).resources "requests" | default dict }}
{{- with .autoscaling }}
{{- if gt (int .minReplicas) (int .maxReplicas) }}
{{- fail (printf "%sautoscaling.minReplicas: %v is more than maxReplicas (%v); raise the one or lower the other" $at .minReplicas .maxReplicas) }}
{{- end }}
{{- if not (or .targetCPUUtilizationPercentage .targetMemoryUtilizationPercentage .metrics) }}
{{- fail (printf "%sautoscaling.metrics: nothing to scale by; set targetCPUUtilizationPercentage, targetMemoryUtilizationPercentage or metrics" $at) }}
{{- end }}
{{- if and .targetCPUUtilizationPercentage (not $requests.cpu) }}
{{- fail (printf "%sresources.requests.cpu: empty, and the autoscaler measures CPU against it; set it, or set autoscaling.targetCPUUtilizationPercentage to null" $at) }}
{{- end }}
{{- if and .targetMemoryUtilizationPercentage (not $requests.memory) }}
{{- fail (printf "%sresources.requests.memory: empty, and the autoscaler measures memory against it; set it, or set autoscaling.targetMemoryUtilizationPercentage to null" $at) }}
{{- end }}
{{- end }}
{{- with .rollout }}
{{- if and (eq .strategy "RollingUpdate") (has (toString .maxSurge) (list "0" "0%")) (has (toString .maxUnavailable) (list "0" "0%")) }}
{{- fail (printf "%srollout.maxSurge: 0, and maxUnavailable is 0 too, so no pod could ever be replaced; set one of them to 1" $at) }}
{{- end }}
{{- if le (int .progressDeadlineSeconds) (int .minReadySeconds) }}
{{- fail (printf "%srollout.progressDeadlineSeconds: %v is no longer than minReadySeconds (%v), so every rollout would fail; raise the one or lower the other" $at .progressDeadlineSeconds .minReadySeconds) }}
{{- end }}
{{- end }}
{{- $port := .port }}
{{- range $name, $probe := .probes }}
{{- $path := printf "%sprobes.%s" $at (trimSuffix "Probe" $name) }}
{{- $handlers := keys (pick $probe "exec" "grpc" "httpGet" "tcpSocket") | sortAlpha }}
{{- if gt (len $handlers) 1 }}
{{- fail (printf "%s: has %s; keep one, and set the other to null where a file before set it" $path (join " and " $handlers)) }}
{{- end }}
{{- if and (not $port) (eq "http" (toString (get (get $probe (first $handlers)) "port"))) }}
{{- fail (printf "%s: asks a port, and the component has none; set its port, or exec with a command" $path) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "flaskapp.validateComponents" -}}
{{- range $name, $own := .Values.components }}
{{- if has $name (include "flaskapp.takenNames" $ | fromJsonArray) }}
{{- fail (printf "components.%s: the chart has pods or objects of that name; choose another" $name) }}
{{- end }}
{{- end }}
{{- end }}

{{/* What components and volumes can't be called, as a JSON list. */}}
{{- define "flaskapp.takenNames" -}}
{{- list "web" "migrate" "migration" "cron" "backup" "test" "database" "database-app" "database-ca" "database-login-app" "database-login-owner" "database-owner" "dashboard" "external" "files" "generated" "postgresql" "tmp" "tools" | toJson }}
{{- end }}

{{- define "flaskapp.validateVolumes" -}}
{{- $values := .Values }}
{{- $mounted := dict "/tmp" "the chart" }}
{{- $keys := dict }}
{{- range $path, $text := $values.files }}
{{- $key := include "flaskapp.fileKey" $path }}
{{- if hasKey $keys $key }}
{{- fail (printf "files: %s and %s have one name in a ConfigMap; rename one" (get $keys $key) $path) }}
{{- end }}
{{- $_ := set $keys $key $path }}
{{- $_ := set $mounted $path (printf "files.%s" $path) }}
{{- end }}
{{- range $name, $volume := $values.persistence }}
{{- $path := printf "persistence.%s" $name }}
{{- if or (has $name (include "flaskapp.takenNames" $ | fromJsonArray)) (hasKey $values.components $name) }}
{{- fail (printf "%s: the chart or a component has that name; choose another" $path) }}
{{- end }}
{{- if hasKey $mounted (trimSuffix "/" $volume.mountPath) }}
{{- fail (printf "%s.mountPath: %s has that path too; choose another" $path (get $mounted (trimSuffix "/" $volume.mountPath))) }}
{{- end }}
{{- $_ := set $mounted (trimSuffix "/" $volume.mountPath) $path }}
{{- include "flaskapp.validateMounts" (dict "root" $ "path" $path "volume" $volume) }}
{{- end }}
{{- end }}

{{/* That a volume's pods can mount it together. Arguments: root, path, volume. */}}
{{- define "flaskapp.validateMounts" -}}
{{- $path := .path }}
{{- $values := .root.Values }}
{{- $mounting := .volume.components | default (list "web") }}
{{- range $mounting }}
{{- if not (or (has . (list "web" "migration" "cron")) (hasKey $values.components .)) }}
{{- fail (printf "%s.components: there is no component %s; name web, migration, cron or one of components" $path .) }}
{{- end }}
{{- end }}
{{- if not (has "ReadWriteMany" (.volume.accessModes | default list)) }}
{{- $pods := 0 }}
{{- range include "flaskapp.workloads" .root | fromJsonArray }}
{{- if has .component $mounting }}
{{- $pods = add $pods (include "flaskapp.mostPods" . | int) }}
{{- if and (eq .rollout.strategy "RollingUpdate") (not (has (toString .rollout.maxSurge) (list "0" "0%"))) }}
{{- fail (printf "%s.accessModes: ReadWriteOnce is mounted on one node at a time, and a rollout of %s starts a second pod first; set rollout.strategy to Recreate, or accessModes to [ReadWriteMany]" $path .component) }}
{{- end }}
{{- end }}
{{- end }}
{{- $jobs := or (has "migration" $mounting) (has "cron" $mounting) }}
{{- if or (gt (int $pods) 1) (and $jobs (ge (int $pods) 1)) }}
{{- fail (printf "%s.accessModes: ReadWriteOnce is mounted on one node at a time, and several pods would mount it; set replicas to 1 and mount it in one component, or accessModes to [ReadWriteMany]" $path) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "flaskapp.validatePorts" -}}
{{- $values := .Values }}
{{- $taken := dict "http" "port" (printf "TCP %v" $values.port) "port" }}
{{- if $values.metrics.enabled }}
{{- $_ := set $taken "metrics" "metrics.port" }}
{{- $_ := set $taken (printf "TCP %v" $values.metrics.port) "metrics.port" }}
{{- end }}
{{- range $values.extraPorts }}
{{- $port := printf "%s %v" (.protocol | default "TCP") .port }}
{{- $name := .name }}
{{- range list $name $port }}
{{- if hasKey $taken . }}
{{- fail (printf "extraPorts: %s is in %s already; choose another" . (get $taken .)) }}
{{- end }}
{{- $_ := set $taken . (printf "extraPorts (%s)" $name) }}
{{- end }}
{{- end }}
{{- if and $values.service.nodePort (eq $values.service.type "ClusterIP") }}
{{- fail "service.nodePort: set, and a Service of the type ClusterIP has none; set service.type to NodePort or LoadBalancer" }}
{{- end }}
{{- $ports := dict }}
{{- range include "flaskapp.workloads" . | fromJsonArray }}
{{- $_ := set $ports .component .port }}
{{- end }}
{{- range $host := ternary $values.ingress.hosts list $values.ingress.enabled }}
{{- if kindIs "map" $host }}
{{- range $host.paths }}
{{- if and .component (not (get $ports .component)) }}
{{- fail (printf "ingress.hosts: there is no component %s with a port; name one of components, and set its port" .component) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Beyond 2^53 a number has lost digits before a template sees it. Arguments: path, value. */}}
{{- define "flaskapp.validateNumbers" -}}
{{- $path := .path }}
{{- if kindIs "map" .value }}
{{- range $key, $value := .value }}
{{- if or (kindIs "map" $value) (kindIs "slice" $value) (kindIs "float64" $value) }}
{{- include "flaskapp.validateNumbers" (dict "path" (trimPrefix "." (printf "%s.%s" $path $key)) "value" $value) }}
{{- end }}
{{- end }}
{{- else if kindIs "slice" .value }}
{{- range $index, $value := .value }}
{{- include "flaskapp.validateNumbers" (dict "path" (printf "%s[%d]" $path $index) "value" $value) }}
{{- end }}
{{- else if kindIs "float64" .value }}
{{- if or (ge .value 9007199254740992.0) (le .value -9007199254740992.0) }}
{{- fail (printf "%s: a number of this size loses digits; put it in quotes" $path) }}
{{- end }}
{{- end }}
{{- end }}
