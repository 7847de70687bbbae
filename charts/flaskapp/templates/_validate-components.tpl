{{/* The parts of validate.yaml that are about components, volumes and numbers. */}}
{{- define "flaskapp.validateComponents" -}}
{{- $values := .Values }}
{{- $names := list "web" "migrate" "migration" "cron" "backup" "test" "database" "files" "generated" "external" "dashboard" }}
{{- range $name, $own := $values.components }}
{{- if has $name $names }}
{{- fail (printf "components.%s: the chart has pods or objects of that name; choose another" $name) }}
{{- end }}
{{- if hasKey $values.persistence $name }}
{{- fail (printf "persistence.%s: called like a component; choose another name" $name) }}
{{- end }}
{{- end }}
{{- range $name, $volume := $values.persistence }}
{{- if $volume }}
{{- $path := printf "persistence.%s" $name }}
{{- if has $name (append $names "tmp") }}
{{- fail (printf "%s: the chart has an object or a volume of that name; choose another" $path) }}
{{- end }}
{{- $mounting := $volume.components | default (list "web") }}
{{- range $mounting }}
{{- if not (or (has . (list "web" "migration" "cron")) (hasKey $values.components .)) }}
{{- fail (printf "%s.components: there is no component %s; name web, migration, cron or one of components" $path .) }}
{{- end }}
{{- end }}
{{- $shared := has "ReadWriteMany" ($volume.accessModes | default list) }}
{{- if not $shared }}
{{- $pods := 0 }}
{{- range include "flaskapp.workloads" $ | fromJsonArray }}
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
{{- end }}
{{- end }}

{{/* Beyond 2^53 a number has lost digits before a template sees it. Arguments: path, value. */}}
{{- define "flaskapp.validateNumber" -}}
{{- if kindIs "float64" .value }}
{{- if or (ge .value 9007199254740992.0) (le .value -9007199254740992.0) }}
{{- fail (printf "%s: a number of this size loses digits; put it in quotes" .path) }}
{{- end }}
{{- end }}
{{- end }}
