{{/* The part of validate.yaml that is about migrations, where there is a database. */}}
{{- define "flaskapp.validateMigrations" -}}
{{- $values := .Values }}
{{- $mode := include "flaskapp.migrationMode" . }}
{{- $database := include "flaskapp.database" . | fromJson }}

{{- if and (ne $mode "none") (not (include "flaskapp.isReachable" (dict "root" . "own" $values.migrations.pod))) }}
{{- fail (printf "database.host: %s is a proxy in the pod, and a migration runs before the sidecars start; move the proxy to initContainers, with restartPolicy Always" $database.host) }}
{{- end }}

{{- if include "flaskapp.isRecorded" . }}
{{- if and (eq $values.database.sslmode "verify-full") (not $values.database.caSecret) }}
{{- fail "database.caSecret: empty, and database.sslmode is verify-full; psql records migrations and needs the CA: name the Secret with ca.crt, or set migrations.record to false" }}
{{- end }}
{{- range $account, $path := dict "app" "database" "owner" "database.owner" }}
{{- if not (include "flaskapp.canLogIn" (dict "root" $ "account" $account)) }}
{{- fail (printf "%s.secretKeys.password: empty, and secretKeys.url too, so psql can't log in to wait for the migration; name a key, or set migrations.waitCommand to a command of the application, or migrations.record to false" $path) }}
{{- end }}
{{- end }}
{{- end }}

{{- $wait := join " " $values.migrations.waitCommand }}
{{- if or (regexMatch "\\b(flask|alembic)\\b[^|&;]*\\b(check|current)\\b[^|&;]*$" $wait) (regexMatch "\\bmigrate\\b[^|&;]*--check\\b[^|&;]*$" $wait) }}
{{- fail (printf "migrations.waitCommand: `%s` fails on a schema that is newer than the image, so no pod would start after a rollback; leave waitCommand empty, and pods wait for the record of their migration" $wait) }}
{{- end }}

{{- if eq $mode "hook" }}
{{- if $values.postgresql.enabled }}
{{- fail "migrations.mode: hook runs before the bundled database exists; use job, or an external database" }}
{{- end }}
{{- if $values.serviceAccount.create }}
{{- fail "migrations.mode: hook runs before the ServiceAccount of the release exists; set serviceAccount.create to false and name one in serviceAccount.name (`default` exists), or use job" }}
{{- end }}
{{- range $path, $is := dict
  "secrets.values" (dict "object" "Secret" "instead" "secrets.existingSecret" "set" $values.secrets.values)
  "secrets.generate" (dict "object" "Secret" "instead" "secrets.existingSecret" "set" $values.secrets.generate)
  "secrets.external" (dict "object" "Secret" "instead" "secrets.existingSecret" "set" $values.secrets.external)
  "database.externalSecret" (dict "object" "Secret" "instead" "database.existingSecret" "set" $values.database.externalSecret)
  "config" (dict "object" "ConfigMap" "instead" "env" "set" $values.config)
  "files" (dict "object" "ConfigMap" "instead" "volumes and volumeMounts" "set" $values.files) }}
{{- if $is.set }}
{{- fail (printf "migrations.mode: hook runs before the %s of %s exists; use %s, or job" $is.object $path $is.instead) }}
{{- end }}
{{- end }}
{{- range $name, $volume := $values.persistence }}
{{- if and $volume (has "migration" ($volume.components | default list)) (not $volume.existingClaim) }}
{{- fail (printf "migrations.mode: hook runs before the claim of persistence.%s exists; use persistence.%s.existingClaim, or job" $name $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
