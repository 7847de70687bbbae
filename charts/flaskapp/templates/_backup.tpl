{{/* A container of the backup, in PostgreSQL's image. Arguments: root, name, script. */}}
{{- define "flaskapp.backupContainer" -}}
{{- $backup := .root.Values.backup -}}
{{- $database := include "flaskapp.database" .root | fromJson -}}
{{- $owner := $database.owner -}}
name: {{ .name }}
image: {{ include "flaskapp.reference" (dict "root" .root "image" $backup.image) | quote }}
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

{{- define "flaskapp.backupPod" -}}
{{- $backup := .Values.backup }}
{{- $owner := (include "flaskapp.database" . | fromJson).owner }}
{{- $name := printf "%s-backup" (include "flaskapp.fullname" .) }}
{{- $dump := include "flaskapp.backupContainer" (dict "root" . "name" "dump" "script" "dump.sh") }}
{{- $verify := include "flaskapp.backupContainer" (dict "root" . "name" "verify" "script" "verify.sh") }}
{{- $own := merge (deepCopy $backup.pod) (dict "podSecurityContext" $backup.podSecurityContext) }}
{{- include "flaskapp.podTemplate" (dict "root" . "own" $own "component" "backup" "ends" "true"
  "container" (ternary (include "flaskapp.backupUpload" .) $verify (not (empty $backup.s3.uri)))
  "init" (ternary (list (fromYaml $dump) (fromYaml $verify)) (list (fromYaml $dump)) (not (empty $backup.s3.uri)) | toYaml)
  "volumes" (include "flaskapp.backupVolumes" (dict "root" . "name" $name "owner" $owner))) }}
{{- end }}

{{- define "flaskapp.backupUpload" -}}
name: upload
image: {{ include "flaskapp.reference" (dict "root" . "image" .Values.backup.s3.image) | quote }}
command: [aws, s3, sync, /var/backups, {{ .Values.backup.s3.uri | quote }}, --exclude, "*", --include, "*.dump", --include, "*.tables"]
env:
  - {name: HOME, value: /tmp}
resources: {{- toYaml .Values.backup.resources | nindent 2 }}
securityContext: {{- toYaml .Values.containerSecurityContext | nindent 2 }}
volumeMounts:
  - {name: backups, mountPath: /var/backups, readOnly: true}
  - {name: tmp, mountPath: /tmp}
{{- end }}

{{/* Arguments: root, name, owner. */}}
{{- define "flaskapp.backupVolumes" -}}
{{- $persistence := .root.Values.backup.persistence -}}
{{- if $persistence.enabled }}
- {name: backups, persistentVolumeClaim: {claimName: {{ $persistence.existingClaim | default .name | quote }}}}
{{- else }}
- {name: backups, emptyDir: {}}
{{- end }}
- {name: scripts, configMap: {name: {{ .name }}}}
- {name: scratch, emptyDir: {}}
- name: database
  secret:
    secretName: {{ .owner.secret | quote }}
    defaultMode: 0440
    items:
      {{- with .owner.usernameKey }}
      - {key: {{ . | quote }}, path: username}
      {{- end }}
      - {key: {{ .owner.passwordKey | quote }}, path: password}
{{- end }}
