{{/* Parts that the pods of the Deployment, the migration and the tests share. Arguments: root, account (app or owner). */}}

{{/* Environment: what the chart sets, then what the values add; a name in the values wins. */}}
{{- define "flaskapp.env" -}}
{{- $values := .root.Values }}
{{- $env := $values.env }}
{{- if eq .account "owner" }}
{{- $env = mergeOverwrite (dict) $env (default (dict) $values.database.owner.env) }}
{{- end }}
{{- $own := list
  (dict "name" "PORT" "value" (toString $values.port))
  (dict "name" "WEB_CONCURRENCY" "value" (toString $values.workers))
  (dict "name" "WEB_THREADS" "value" (toString $values.threads))
  (dict "name" "GRACEFUL_TIMEOUT" "value" (toString $values.rollout.gracefulSeconds)) }}
{{- if $values.metrics.enabled }}
{{- $own = append $own (dict "name" "METRICS_PORT" "value" (toString $values.metrics.port)) }}
{{- end }}
{{- if $values.database.enabled }}
{{- $own = concat $own (include "flaskapp.databaseEnv" . | fromJsonArray) }}
{{- end }}
{{- range $own }}
{{- if not (hasKey $env .name) }}
- {{ toJson . }}
{{- end }}
{{- end }}
{{- range $name, $value := $env }}
{{- if kindIs "map" $value }}
- {{ merge (dict "name" $name) $value | toJson }}
{{- else if not (kindIs "invalid" $value) }}
- {{ dict "name" $name "value" (include "flaskapp.text" $value) | toJson }}
{{- end }}
{{- end }}
{{- end }}

{{/* The database's variables as a JSON list. A name that is empty is left out. */}}
{{- define "flaskapp.databaseEnv" -}}
{{- $names := .root.Values.database.env }}
{{- $database := include "flaskapp.database" .root | fromJson }}
{{- $account := get $database .account }}
{{- $plain := dict $names.host $database.host $names.port $database.port $names.name $database.name $names.sslmode .root.Values.database.sslmode }}
{{- if .root.Values.database.caSecret }}
{{- $_ := set $plain $names.sslrootcert "/run/secrets/database-ca/ca.crt" }}
{{- end }}
{{- $secret := dict $names.url $account.urlKey }}
{{- range $name, $key := dict $names.username $account.usernameKey $names.password $account.passwordKey }}
{{- if not (and $name $key) }}
{{- else if $names.files }}
{{- $_ := set $plain (printf "%s_FILE" $name) (printf "/run/secrets/database/%s" (ternary "username" "password" (eq $name $names.username))) }}
{{- else }}
{{- $_ := set $secret $name $key }}
{{- end }}
{{- end }}
{{- if not $account.usernameKey }}
{{- $_ := set $plain $names.username $account.username }}
{{- end }}
{{- $list := list }}
{{- range $name, $value := unset $plain "" }}
{{- $list = append $list (dict "name" $name "value" (toString $value)) }}
{{- end }}
{{- range $name, $key := unset $secret "" }}
{{- $list = append $list (dict "name" $name "valueFrom" (dict "secretKeyRef" (dict "name" $account.secret "key" $key))) }}
{{- end }}
{{- toJson $list }}
{{- end }}

{{- define "flaskapp.envFrom" -}}
{{- with .Values.config }}
- configMapRef: {name: {{ include "flaskapp.fullname" $ }}}
{{- end }}
{{- with .Values.secrets.values }}
- secretRef: {name: {{ include "flaskapp.fullname" $ }}}
{{- end }}
{{- with .Values.secrets.existingSecret }}
- secretRef: {name: {{ . }}}
{{- end }}
{{- if .Values.secrets.generate }}
- secretRef: {name: {{ include "flaskapp.fullname" $ }}-generated}
{{- end }}
{{- with .Values.secrets.external }}
- secretRef: {name: {{ include "flaskapp.fullname" $ }}-external}
{{- end }}
{{- end }}

{{/* A container in the application's image. Arguments: root, account, name, command (empty: the image's own), moreEnv. */}}
{{- define "flaskapp.container" -}}
{{- $root := .root -}}
name: {{ .name }}
image: {{ include "flaskapp.image" $root }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
{{- with .command }}
command: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with include "flaskapp.envFrom" $root | trim }}
envFrom: {{- . | nindent 2 }}
{{- end }}
env:
  {{- include "flaskapp.env" . | trim | nindent 2 }}
  {{- range .moreEnv }}
  - {{ toJson . }}
  {{- end }}
resources: {{- toYaml $root.Values.resources | nindent 2 }}
securityContext: {{- toYaml $root.Values.containerSecurityContext | nindent 2 }}
volumeMounts: {{- include "flaskapp.volumeMounts" . | nindent 2 }}
{{- end }}

{{/* "true" where an account's credentials are files. Arguments: root, account. */}}
{{- define "flaskapp.databaseFiles" -}}
{{- $names := .root.Values.database.env }}
{{- $account := get (include "flaskapp.database" .root | fromJson) .account }}
{{- $read := or (and $names.username $account.usernameKey) (and $names.password $account.passwordKey) }}
{{- if and .root.Values.database.enabled $names.files $read }}true{{ end }}
{{- end }}

{{/* Arguments: root, account. */}}
{{- define "flaskapp.volumeMounts" -}}
{{- $values := .root.Values -}}
- {name: tmp, mountPath: /tmp}
{{- if include "flaskapp.databaseFiles" . }}
- {name: database-{{ .account }}, mountPath: /run/secrets/database, readOnly: true}
{{- end }}
{{- if and $values.database.enabled $values.database.caSecret }}
- {name: database-ca, mountPath: /run/secrets/database-ca, readOnly: true}
{{- end }}
{{- range $path, $_ := $values.files }}
- {name: files, mountPath: {{ $path }}, subPath: {{ include "flaskapp.fileKey" $path }}, readOnly: true}
{{- end }}
{{- with $values.volumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Arguments: root, accounts (whose credentials the containers of the pod read). */}}
{{- define "flaskapp.volumes" -}}
{{- $values := .root.Values -}}
- {name: tmp, emptyDir: {}}
{{- $root := .root }}
{{- $database := include "flaskapp.database" .root | fromJson }}
{{- range .accounts }}
{{- $account := get $database . }}
{{- if include "flaskapp.databaseFiles" (dict "root" $root "account" .) }}
- name: database-{{ . }}
  secret:
    secretName: {{ $account.secret }}
    defaultMode: 0440
    items:
      {{- with $account.usernameKey }}
      - {key: {{ . }}, path: username}
      {{- end }}
      {{- with $account.passwordKey }}
      - {key: {{ . }}, path: password}
      {{- end }}
{{- end }}
{{- end }}
{{- if $values.database.enabled }}
{{- with $values.database.caSecret }}
- {name: database-ca, secret: {secretName: {{ . }}, defaultMode: 0440, items: [{key: ca.crt, path: ca.crt}]}}
{{- end }}
{{- end }}
{{- if $values.files }}
- {name: files, configMap: {name: {{ include "flaskapp.fullname" .root }}-files}}
{{- end }}
{{- with $values.volumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* What every pod says of itself: identity, security, and no token and no service links. */}}
{{- define "flaskapp.podSettings" -}}
automountServiceAccountToken: false
# A Service called `flaskapp` would otherwise inject FLASKAPP_PORT=tcp://….
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext: {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Checksums of what the pods read from objects of this chart. */}}
{{- define "flaskapp.checksums" -}}
checksum/config: {{ list .Values.config .Values.files | toJson | sha256sum }}
checksum/secret: {{ .Values.secrets.values | toJson | sha256sum }}
{{- /* Pods that have the password as a variable move to a new one by a rollout. */}}
{{- $names := .Values.database.env }}
{{- if and .Values.database.enabled .Values.postgresql.enabled (or $names.url (not $names.files)) }}
{{- with .Values.postgresql.auth.password }}
checksum/password: {{ printf "%s %s" $.Release.Name . | sha256sum | trunc 12 }}
{{- end }}
{{- end }}
{{- end }}
