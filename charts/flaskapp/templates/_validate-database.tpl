{{/* The part of validate.yaml that is about the database. */}}
{{- define "flaskapp.validateDatabase" -}}
{{- $values := .Values }}
{{- $database := $values.database }}
{{- $mode := include "flaskapp.migrationMode" . }}

{{- if not $database.enabled }}
{{- if $values.postgresql.enabled }}
{{- fail "database.enabled: false, and postgresql.enabled would still bring a server; set postgresql.enabled to false too" }}
{{- end }}
{{- if $values.backup.enabled }}
{{- fail "backup.enabled: true, and database.enabled is false; there is nothing to back up" }}
{{- end }}
{{- else }}
{{- $facts := include "flaskapp.database" . | fromJson }}
{{- with $values.backup }}
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
{{- if not $database.host }}
{{- fail "database.host: empty, and postgresql.enabled is false; name the server, or set database.enabled to false for an application without one" }}
{{- end }}
{{- range list $facts.app $facts.owner }}
{{- $read := or .usernameKey (and .passwordKey $database.env.password) (and .urlKey $database.env.url) }}
{{- if and $read (not .secret) }}
{{- fail "database.existingSecret: empty; name the Secret with the credentials of the external database, or fetch one by database.externalSecret" }}
{{- end }}
{{- end }}
{{- if and $database.existingSecret $database.externalSecret }}
{{- fail "database.existingSecret: set, and database.externalSecret makes a Secret too; keep one" }}
{{- end }}
{{- if and $database.env.url (not $database.secretKeys.url) }}
{{- fail "database.secretKeys.url: empty, and database.env.url wants a URL; name the key that holds it, percent-encoded" }}
{{- end }}
{{- if not (or $database.username $database.secretKeys.username $database.env.url) }}
{{- fail "database.username: empty; set it, or name its key in database.secretKeys.username" }}
{{- end }}
{{- end }}
{{- if and (eq $database.sslmode "verify-ca") (not $database.caSecret) (not (hasKey $values.env $database.env.sslrootcert)) }}
{{- fail "database.caSecret: empty, and database.sslmode is verify-ca; name the Secret with ca.crt" }}
{{- end }}
{{- if and $values.networkPolicy.enabled (not $values.postgresql.enabled) (not $values.networkPolicy.databaseTo) }}
{{- fail "networkPolicy.databaseTo: empty, so the external database could not be reached; name its addresses, such as [{ipBlock: {cidr: 10.0.0.0/16}}]" }}
{{- end }}
{{- $pods := ternary $values.autoscaling.maxReplicas $values.replicas $values.autoscaling.enabled | int }}
{{- $surge := toString $values.rollout.maxSurge }}
{{- if hasSuffix "%" $surge }}
{{- $surge = divf (mulf $pods (trimSuffix "%" $surge | float64)) 100 | ceil }}
{{- end }}
{{- $wanted := add (mul (add $pods ($surge | int)) $values.workers $values.threads) $database.reservedConnections }}
{{- if gt (int $wanted) (int $facts.maxConnections) }}
{{- fail (printf "%s: %v, and (%d pods + %d surge) x %v workers x %v threads + %v reserved could ask for %d; lower these, or raise what the server allows"
  (ternary "postgresql.maxConnections" "database.maxConnections" $values.postgresql.enabled) $facts.maxConnections $pods (int $surge) $values.workers $values.threads $database.reservedConnections $wanted) }}
{{- end }}
{{- if and (ne $mode "none") (not $values.migrations.command) }}
{{- fail "migrations.command: empty; set it, or set migrations.mode to none" }}
{{- end }}
{{- include "flaskapp.validateMigrations" . }}
{{- end }}
{{- end }}
