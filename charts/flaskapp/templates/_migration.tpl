{{/* Migrations, and how pods wait for them and for the database: docs/upgrades.md has the contract. */}}

{{/* "true" where psql can log in: with a password, a URL or a proxy, and a CA where one is to be checked. Arguments: root, account. */}}
{{- define "flaskapp.canLogIn" -}}
{{- $database := include "flaskapp.database" .root | fromJson }}
{{- $account := get $database .account }}
{{- $unverified := and (eq .root.Values.database.sslmode "verify-full") (not .root.Values.database.caSecret) }}
{{- if and (or $account.passwordKey $account.urlKey (include "flaskapp.isProxied" .root)) (not $unverified) }}true{{ end }}
{{- end }}

{{/* "true" where a proxy in the pod listens in the database's place. */}}
{{- define "flaskapp.isProxied" -}}
{{- if has (include "flaskapp.database" . | fromJson).host (list "localhost" "127.0.0.1" "::1") }}true{{ end }}
{{- end }}

{{/* "true" where the database can be reached before the containers start: a proxy must be a native sidecar for that. Arguments: root, own. */}}
{{- define "flaskapp.isReachable" -}}
{{- $native := false }}
{{- range (include "flaskapp.podSettings" . | fromJson).initContainers }}
{{- $native = or $native (eq "Always" (dig "restartPolicy" "" .)) }}
{{- end }}
{{- if or $native (not (include "flaskapp.isProxied" .root)) }}true{{ end }}
{{- end }}

{{/* "true" where finished migrations are recorded in the database. */}}
{{- define "flaskapp.isRecorded" -}}
{{- $migrations := .Values.migrations }}
{{- if and (ne "none" (include "flaskapp.migrationMode" .)) $migrations.record (not $migrations.waitCommand) }}true{{ end }}
{{- end }}

{{/*
What a migration is known by: the image, without its registry, which may be a mirror, and the command. Settings are no part
of it: an earlier image is rolled back to with the settings of today, too.
*/}}
{{- define "flaskapp.migrationId" -}}
{{- $image := regexReplaceAll "^([^/]*[.:][^/]*|localhost)/" (include "flaskapp.image" .) "" }}
{{- list $image .Values.migrations.command | toJson | sha256sum | trunc 16 }}
{{- end }}

{{/*
The init containers with which a pod that serves waits, as a YAML list; where `migrations.mode` says so, it migrates. Empty
where it waits for nothing. Arguments: root, account, own, component.
*/}}
{{- define "flaskapp.waitContainers" -}}
{{- $migrations := .root.Values.migrations }}
{{- $mode := include "flaskapp.migrationMode" .root }}
{{- if not (and (include "flaskapp.hasDatabase" .root) (include "flaskapp.isReachable" .)) }}
{{- else if eq $mode "initContainer" }}
{{- include "flaskapp.beforeMigration" . }}
- {{ include "flaskapp.migrateContainer" . | indent 2 | trim }}
{{- else if not .root.Values.database.wait }}
{{- else if include "flaskapp.isRecorded" .root }}
- {{ include "flaskapp.clientContainer" (merge (dict "name" "wait-for-schema" "word" "record") .) | indent 2 | trim }}
{{- else if and $migrations.waitCommand (ne $mode "none") }}
- {{ include "flaskapp.toolsContainer" . | indent 2 | trim }}
- {{ include "flaskapp.wrappedContainer" (merge (dict "name" "wait-for-schema" "word" "repeat" "command" $migrations.waitCommand) .) | indent 2 | trim }}
{{- else }}
- {{ include "flaskapp.waitForDatabase" . | indent 2 | trim }}
{{- end }}
{{- end }}

{{/* The init containers before `migrate`: no attempt is spent on a server that is still starting. Arguments: as above. */}}
{{- define "flaskapp.beforeMigration" -}}
{{- $owner := merge (dict "account" "owner") . }}
- {{ include "flaskapp.waitForDatabase" $owner | indent 2 | trim }}
{{- if include "flaskapp.isRecorded" .root }}
- {{ include "flaskapp.toolsContainer" . | indent 2 | trim }}
- {{ include "flaskapp.clientContainer" (merge (dict "name" "migration-lock" "word" "lock") $owner) | indent 2 | trim }}
{{- end }}
{{- end }}

{{- define "flaskapp.migrateContainer" -}}
{{- $arguments := merge (dict "account" "owner" "name" "migrate" "word" "migrate" "command" .root.Values.migrations.command) . }}
{{- include (ternary "flaskapp.wrappedContainer" "flaskapp.container" (eq "true" (include "flaskapp.isRecorded" .root))) $arguments }}
{{- end }}

{{- define "flaskapp.waitForDatabase" -}}
{{- $word := ternary "login" "port" (eq "true" (include "flaskapp.canLogIn" .)) }}
{{- include "flaskapp.clientContainer" (merge (dict "name" "wait-for-database" "word" $word) .) }}
{{- end }}

{{/* The volumes that these containers (their text) mount, as a YAML list. Arguments: root, containers. */}}
{{- define "flaskapp.migrationVolumes" -}}
{{- $arguments := . }}
{{- $database := include "flaskapp.database" .root | fromJson }}
{{- if contains "mountPath: /run/flaskapp" .containers }}
- {name: tools, emptyDir: {}}
{{- end }}
{{- range $name := list "app" "owner" }}
{{- if contains (printf "database-login-%s" $name) $arguments.containers }}
{{- $account := get $database $name }}
- name: database-login-{{ $name }}
  secret:
    secretName: {{ $account.secret }}
    defaultMode: 0440
    # Of a password and a URL a Secret may have one.
    optional: true
    items:
      {{- range $path, $key := dict "username" $account.usernameKey "password" $account.passwordKey "url" $account.urlKey }}
      {{- if $key }}
      - {key: {{ $key }}, path: {{ $path }}}
      {{- end }}
      {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* A container that runs files/database.sh, and files/lock.sh, in an image with psql. Arguments: root, account, own, name, word. */}}
{{- define "flaskapp.clientContainer" -}}
{{- $values := .root.Values -}}
{{- $settings := include "flaskapp.podSettings" (dict "root" .root "own" .own) | fromJson }}
{{- $database := include "flaskapp.database" .root | fromJson }}
{{- $account := get $database .account -}}
name: {{ .name }}
image: {{ include "flaskapp.reference" (dict "root" .root "image" $values.database.clientImage) | quote }}
imagePullPolicy: IfNotPresent
command:
  - bash
  - -c
  - |
    {{- .root.Files.Get "files/database.sh" | trim | nindent 4 }}
    {{- if eq .word "lock" }}
    {{- .root.Files.Get "files/lock.sh" | nindent 4 }}
    {{- end }}
  - database.sh
  - {{ .word }}
env:
  - {name: PGHOST, value: {{ $database.host | quote }}}
  - {name: PGPORT, value: {{ $database.port | quote }}}
  - {name: PGDATABASE, value: {{ $database.name | quote }}}
  - {name: PGUSER, value: {{ $account.username | quote }}}
  - {name: PGSSLMODE, value: {{ $values.database.sslmode | quote }}}
  {{- if $values.database.caSecret }}
  - {name: PGSSLROOTCERT, value: /run/secrets/database-ca/ca.crt}
  {{- end }}
  {{- if has .word (list "record" "lock") }}
  - {name: RELEASE, value: {{ printf "%s/%s" .root.Release.Namespace .root.Release.Name }}}
  - {name: MIGRATION, value: {{ include "flaskapp.migrationId" .root | quote }}}
  - {name: IMAGE, value: {{ include "flaskapp.image" .root | quote }}}
  {{- end }}
{{- if eq .word "lock" }}
# A native sidecar: it is there until the migration ends. The decision is in the file when `migrate` may start.
restartPolicy: Always
startupProbe:
  exec: {command: [test, -e, /run/flaskapp/decision]}
  periodSeconds: 1
  timeoutSeconds: 5
  failureThreshold: 86400
resources:
  requests: {cpu: 10m, memory: 16Mi}
  limits:
    memory: 64Mi
    {{- with dig "limits" "cpu" "" $settings.resources }}
    cpu: {{ . }}
    {{- end }}
{{- else }}
resources: {{- toYaml $settings.resources | nindent 2 }}
{{- end }}
securityContext: {{- toYaml $settings.containerSecurityContext | nindent 2 }}
{{- $login := and (ne .word "port") $account.secret }}
{{- if or $login $values.database.caSecret (eq .word "lock") }}
volumeMounts:
  {{- if $login }}
  - {name: database-login-{{ .account }}, mountPath: /run/secrets/database-login, readOnly: true}
  {{- end }}
  {{- if $values.database.caSecret }}
  - {name: database-ca, mountPath: /run/secrets/database-ca, readOnly: true}
  {{- end }}
  {{- if eq .word "lock" }}
  - {name: tools, mountPath: /run/flaskapp}
  {{- end }}
{{- end }}
{{- end }}

{{/* Copies the static busybox to where containers of the application's image find it. Arguments: root, own. */}}
{{- define "flaskapp.toolsContainer" -}}
{{- $settings := include "flaskapp.podSettings" (dict "root" .root "own" .own) | fromJson -}}
name: tools
image: {{ include "flaskapp.reference" (dict "root" .root "image" .root.Values.toolsImage) | quote }}
imagePullPolicy: IfNotPresent
# After a restart of the node the files of the run before are still there.
command: [/bin/busybox, sh, -c, '/bin/busybox rm -f /run/flaskapp/* && /bin/busybox cp /bin/busybox /run/flaskapp/']
resources: {{- toYaml $settings.resources | nindent 2 }}
securityContext: {{- toYaml $settings.containerSecurityContext | nindent 2 }}
volumeMounts:
  - {name: tools, mountPath: /run/flaskapp}
{{- end }}

{{/* A command of the application under files/run.sh. Arguments: those of flaskapp.container, and word. */}}
{{- define "flaskapp.wrappedContainer" -}}
{{- $script := .root.Files.Get "files/run.sh" }}
{{- $command := concat (list "/run/flaskapp/busybox" "sh" "-c" $script "run.sh" .word) .command }}
{{- $container := include "flaskapp.container" (merge (dict "command" $command) .) | fromYaml }}
{{- $_ := set $container "volumeMounts" (append $container.volumeMounts (dict "name" "tools" "mountPath" "/run/flaskapp")) }}
{{- toYaml $container }}
{{- end }}

{{/* The pod of the Job. */}}
{{- define "flaskapp.migrationPod" -}}
{{- $pod := dict "root" . "account" "owner" "own" .Values.migrations.pod "component" "migration" }}
{{- $before := include "flaskapp.beforeMigration" $pod }}
{{- $migrate := include "flaskapp.migrateContainer" $pod }}
{{- include "flaskapp.podTemplate" (merge (dict
  "container" $migrate "init" $before "accounts" (list "owner") "ends" "true"
  "volumes" (include "flaskapp.migrationVolumes" (dict "root" . "containers" (print $before $migrate)))
  "annotations" (merge (include "flaskapp.checksums" . | fromYaml) (dict "flaskapp/migration-retry" (toString .Values.migrations.retry)))) $pod) }}
{{- end }}
