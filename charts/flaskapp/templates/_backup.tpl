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

{{- define "flaskapp.backupPod" -}}
{{- $backup := .Values.backup -}}
{{- $owner := (include "flaskapp.database" . | fromJson).owner -}}
{{- $name := printf "%s-backup" (include "flaskapp.fullname" .) -}}
metadata:
  labels:
    {{- include "flaskapp.instanceLabels" . | nindent 4 }}
    app.kubernetes.io/component: backup
spec:
  serviceAccountName: {{ include "flaskapp.serviceAccountName" . }}
  {{- include "flaskapp.podSettings" (dict "Values" (set (deepCopy .Values) "podSecurityContext" $backup.podSecurityContext)) | nindent 2 }}
  restartPolicy: Never
  initContainers:
    - {{ include "flaskapp.backupContainer" (dict "root" . "name" "dump" "script" "dump.sh") | indent 6 | trim }}
    {{- if $backup.s3.uri }}
    - {{ include "flaskapp.backupContainer" (dict "root" . "name" "verify" "script" "verify.sh") | indent 6 | trim }}
    {{- end }}
  containers:
    {{- if $backup.s3.uri }}
    - name: upload
      image: {{ printf "%s:%v" $backup.s3.image.repository $backup.s3.image.tag }}
      command: [aws, s3, sync, /var/backups, {{ $backup.s3.uri | quote }}, --exclude, "*", --include, "*.dump", --include, "*.tables"]
      env:
        - {name: HOME, value: /tmp}
      resources: {{- toYaml $backup.resources | nindent 8 }}
      securityContext: {{- toYaml .Values.containerSecurityContext | nindent 8 }}
      volumeMounts:
        - {name: backups, mountPath: /var/backups, readOnly: true}
        - {name: tmp, mountPath: /tmp}
    {{- else }}
    - {{ include "flaskapp.backupContainer" (dict "root" . "name" "verify" "script" "verify.sh") | indent 6 | trim }}
    {{- end }}
  volumes:
    {{- if $backup.persistence.enabled }}
    - {name: backups, persistentVolumeClaim: {claimName: {{ $backup.persistence.existingClaim | default $name }}}}
    {{- else }}
    - {name: backups, emptyDir: {}}
    {{- end }}
    - {name: scripts, configMap: {name: {{ $name }}}}
    - {name: scratch, emptyDir: {}}
    - {name: tmp, emptyDir: {}}
    - name: database
      secret:
        secretName: {{ $owner.secret }}
        defaultMode: 0440
        items:
          {{- with $owner.usernameKey }}
          - {key: {{ . }}, path: username}
          {{- end }}
          - {key: {{ $owner.passwordKey }}, path: password}
    {{- with .Values.database.caSecret }}
    - {name: database-ca, secret: {secretName: {{ . }}, defaultMode: 0440, items: [{key: ca.crt, path: ca.crt}]}}
    {{- end }}
{{- end }}
