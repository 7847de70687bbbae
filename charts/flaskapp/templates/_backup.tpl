{{/* A container of the backup, in PostgreSQL's image. Arguments: root, name, script. */}}
{{- define "flaskapp.backupContainer" -}}
{{- $backup := .root.Values.backup -}}
{{- $database := include "flaskapp.database" .root | fromJson -}}
{{- $owner := $database.owner -}}
name: {{ .name }}
image: {{ printf "%s:%v" $backup.image.repository $backup.image.tag }}
imagePullPolicy: IfNotPresent
command: [bash, /etc/backup/{{ .script }}]
env:
  - {name: PGHOST, value: {{ $database.host | quote }}}
  - {name: PGPORT, value: {{ $database.port | quote }}}
  - {name: PGDATABASE, value: {{ $database.name | quote }}}
  - {name: PGSSLMODE, value: {{ .root.Values.database.sslmode | quote }}}
  {{- if .root.Values.database.caSecret }}
  - {name: PGSSLROOTCERT, value: /run/secrets/database-ca/ca.crt}
  {{- end }}
  {{- if $owner.usernameKey }}
  - {name: PGUSER_FILE, value: /run/secrets/database/username}
  {{- else }}
  - {name: PGUSER, value: {{ $owner.username | quote }}}
  {{- end }}
  - {name: PGPASSWORD_FILE, value: /run/secrets/database/password}
  - {name: BACKUPS, value: /var/backups}
  - {name: SCRIPTS, value: /etc/backup}
  - {name: SCRATCH, value: /var/scratch}
  - {name: KEEP, value: {{ $backup.keep | quote }}}
resources: {{- toYaml $backup.resources | nindent 2 }}
securityContext: {{- toYaml .root.Values.containerSecurityContext | nindent 2 }}
volumeMounts:
  - {name: backups, mountPath: /var/backups}
  - {name: scripts, mountPath: /etc/backup, readOnly: true}
  - {name: scratch, mountPath: /var/scratch}
  - {name: tmp, mountPath: /tmp}
  - {name: database, mountPath: /run/secrets/database, readOnly: true}
  {{- if .root.Values.database.caSecret }}
  - {name: database-ca, mountPath: /run/secrets/database-ca, readOnly: true}
  {{- end }}
{{- end }}
