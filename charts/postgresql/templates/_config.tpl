{{/* What the ConfigMap holds; the pod carries its checksum. */}}
{{- define "postgresql.configData" -}}
start.sh: |
{{- .Files.Get "files/start.sh" | trim | nindent 2 }}
user.sh: |
{{- .Files.Get "files/user.sh" | trim | nindent 2 }}
roles.sh: |
{{- .Files.Get "files/roles.sh" | trim | nindent 2 }}
roles.sql: |
{{- .Files.Get "files/roles.sql" | trim | nindent 2 }}
overlap.sql: |
{{- .Files.Get "files/overlap.sql" | trim | nindent 2 }}
pg_hba.conf: |
  # The superuser comes in over the socket alone (start.sh writes the map); everyone else with a SCRAM password.
  local   all postgres             peer map=superuser
  host    all postgres all         reject
  {{ ternary "hostssl" "host   " (not (empty .Values.tls.existingSecret)) }} all all      all         scram-sha-256
postgresql.conf: |
  {{- include "postgresql.settings" . | trim | nindent 2 }}
{{- end }}

{{- define "postgresql.settings" -}}
{{- $resources := .Values.primary.resources }}
{{- $memory := (($resources).limits).memory | default (($resources).requests).memory | default "384Mi" }}
{{- $mebibytes := include "postgresql.mebibytes" $memory | float64 | floor | int64 }}
{{- $settings := dict
  "listen_addresses" "*"
  "unix_socket_directories" "/var/run/postgresql"
  "hba_file" "/etc/postgresql/pg_hba.conf"
  "max_connections" .Values.maxConnections
  "password_encryption" "scram-sha-256"
  "shared_buffers" (printf "%dMB" (max 16 (div $mebibytes 4)))
  "effective_cache_size" (printf "%dMB" (max 32 (div $mebibytes 2)))
  "maintenance_work_mem" (printf "%dMB" (max 8 (div $mebibytes 16)))
  "work_mem" (printf "%dkB" (max 1024 (div (mul $mebibytes 256) .Values.maxConnections)))
  "max_wal_size" "512MB"
  "wal_compression" "on"
  "idle_in_transaction_session_timeout" "60s"
  "tcp_keepalives_idle" 30
  "tcp_keepalives_interval" 10
  "tcp_keepalives_count" 3
  "log_destination" "stderr"
  "log_line_prefix" "%m [%p] %q%u@%d "
  "log_min_duration_statement" "1s"
  "log_parameter_max_length" 0
  "log_parameter_max_length_on_error" 0
}}
{{- if .Values.tls.existingSecret }}
{{- $settings = merge $settings (dict "ssl" "on" "ssl_min_protocol_version" "TLSv1.3"
  "ssl_cert_file" "/run/secrets/postgresql-tls/tls.crt" "ssl_key_file" "/run/secrets/postgresql-tls/tls.key") }}
{{- end }}
{{- range $name, $value := include "postgresql.strings" (list $settings .Values.configuration) | fromJson }}
{{ $name }} = '{{ $value | replace "\\" "\\\\" | replace "'" "''" }}'
{{- end }}
{{- end }}

{{/* Files by name, as YAML: `owner.…` the owner runs, all others the superuser before it, in the order of their names. */}}
{{- define "postgresql.initSQL" -}}
{{- $files := dict }}
{{- range .Values.extensions }}
{{- $_ := set $files "extensions.sql" (printf "%sCREATE EXTENSION IF NOT EXISTS \"%s\" CASCADE;\n" (get $files "extensions.sql") .) }}
{{- end }}
{{- range $role, $key := dict "superuser" "asSuperuser" "owner" "asOwner" }}
{{- range $name, $text := get $.Values.initSQL $key }}
{{- if $text }}
{{- $_ := set $files (printf "%s.%s" $role $name) $text }}
{{- end }}
{{- end }}
{{- end }}
{{- toYaml $files }}
{{- end }}
