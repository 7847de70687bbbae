{{/* The part of validate.yaml that is about the database. */}}
{{- define "flaskapp.validateDatabase" -}}
{{- $values := .Values }}
{{- $database := $values.database }}
{{- $mode := include "flaskapp.migrationMode" . }}

{{- if not $values.postgresql.enabled }}
{{- range (lookup "apps/v1" "StatefulSet" .Release.Namespace "").items | default list }}
{{- $labels := .metadata.labels | default dict }}
{{- $ours := and (eq $.Release.Name (get $labels "app.kubernetes.io/instance")) (eq "Helm" (get $labels "app.kubernetes.io/managed-by")) (hasPrefix "postgresql-" (get $labels "helm.sh/chart")) }}
{{- if and $ours (eq "Delete" (dig "spec" "persistentVolumeClaimRetentionPolicy" "whenDeleted" "" .)) }}
{{- fail (printf "postgresql.enabled: false, and the volume of the database server %s would go with it; set postgresql.primary.persistence.keep to true, upgrade, then try again" .metadata.name) }}
{{- end }}
{{- if and $ours (ne .metadata.name $database.replacedServer) }}
{{- fail (printf "postgresql.enabled: false, and this release has the database server %s; set it to true, or move the data first and then set database.replacedServer to %s (its volume stays)" .metadata.name .metadata.name) }}
{{- end }}
{{- end }}
{{- end }}

{{- if not (include "flaskapp.hasDatabase" .) }}
{{- if $values.backup.enabled }}
{{- fail "backup.enabled: true, and there is no database; set postgresql.enabled, or name the server in database.host" }}
{{- end }}
{{- if $values.migrations.command }}
{{- fail "migrations.command: set, and there is no database; set postgresql.enabled, or name the server in database.host" }}
{{- end }}
{{- else }}
{{- $facts := include "flaskapp.database" . | fromJson }}
{{- with $values.backup }}
{{- if and .enabled (not $facts.host) }}
{{- fail "backup.enabled: true, and pg_dump takes no URL; name the server in database.host" }}
{{- end }}
{{- if and .enabled (not $facts.owner.passwordKey) }}
{{- fail "backup.enabled: true, and pg_dump has no password; name its key in database.owner.secretKeys.password, or database.secretKeys.password without an owner" }}
{{- end }}
{{- if and .enabled (not .persistence.enabled) (not .s3.uri) }}
{{- fail "backup.persistence.enabled: false, and backup.s3.uri is empty, so the dumps would be kept nowhere; set one of them" }}
{{- end }}
{{- end }}
{{- if and $values.postgresql.enabled $database.host }}
{{- fail "database.host: set, and postgresql.enabled brings a server too; set postgresql.enabled to false to use the host" }}
{{- end }}
{{- if not $values.postgresql.enabled }}
{{- range list $facts.app $facts.owner }}
{{- $read := or .usernameKey (and .passwordKey $database.env.password) (and .urlKey $database.env.url) }}
{{- if and $read (not .secret) }}
{{- fail "database.existingSecret: empty; name the Secret with the credentials of the external database, or fetch one by database.externalSecret" }}
{{- end }}
{{- end }}
{{- if and $database.existingSecret $database.externalSecret }}
{{- fail "database.existingSecret: set, and database.externalSecret makes a Secret too; keep one" }}
{{- end }}
{{- if and $database.host (not (or $database.username $database.secretKeys.username $database.secretKeys.url)) }}
{{- fail "database.username: empty; set it, or name its key in database.secretKeys.username" }}
{{- end }}
{{- if and $database.host (not (or $database.name $database.secretKeys.url)) }}
{{- fail "database.name: empty; name the database on that server" }}
{{- end }}
{{- end }}
{{- if and (eq $database.sslmode "verify-ca") (not $database.caSecret) (not (hasKey $values.env $database.env.sslrootcert)) }}
{{- fail "database.caSecret: empty, and database.sslmode is verify-ca; name the Secret with ca.crt" }}
{{- end }}
{{- if and $values.networkPolicy.enabled (not $values.postgresql.enabled) (not $values.networkPolicy.databaseTo) }}
{{- fail "networkPolicy.databaseTo: empty, so the external database could not be reached; name its addresses, such as [{ipBlock: {cidr: 10.0.0.0/16}}]" }}
{{- end }}
{{- $workers := $values.workers | default 1 }}
{{- $threads := $values.threads | default 1 }}
{{- $web := include "flaskapp.workloads" . | fromJsonArray | first }}
{{- $pods := include "flaskapp.mostPods" $web | int }}
{{- $surge := toString $values.rollout.maxSurge }}
{{- if hasSuffix "%" $surge }}
{{- $surge = divf (mulf $pods (trimSuffix "%" $surge | float64)) 100 | ceil }}
{{- end }}
{{- $sum := printf "(%d pods + %d surge) x %v workers x %v threads + %v reserved" $pods (int $surge) $workers $threads $database.reservedConnections }}
{{- $wanted := add (mul (add $pods ($surge | int)) $workers $threads) $database.reservedConnections }}
{{- range include "flaskapp.workloads" . | fromJsonArray | rest }}
{{- $most := include "flaskapp.mostPods" . | int }}
{{- $wanted = add $wanted $most }}
{{- $sum = printf "%s + %d %s" $sum $most .component }}
{{- end }}
{{- if gt (int $wanted) (int $facts.maxConnections) }}
{{- fail (printf "%s: %v, and %s could ask for %d; lower these, or raise what the server allows"
  (ternary "postgresql.maxConnections" "database.maxConnections" $values.postgresql.enabled) $facts.maxConnections $sum $wanted) }}
{{- end }}
{{- include "flaskapp.validateMigrations" . }}
{{- end }}
{{- end }}
