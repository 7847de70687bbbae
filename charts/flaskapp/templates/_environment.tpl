{{/* The variables of containers in the application's image. */}}

{{/*
Environment, as a JSON list: what the chart sets, then what the values add; a name in the values wins, null leaves it out.
A variable stands after the ones that its `$(NAME)` names. Arguments: root, account, own.
*/}}
{{- define "flaskapp.env" -}}
{{- $root := .root }}
{{- $values := .root.Values }}
{{- $wanted := dict }}
{{- range list $values.env (ternary $values.database.owner.env (dict) (eq .account "owner")) (get (.own | default dict) "env" | default dict) }}
{{- range $name, $value := . }}
{{- $_ := set $wanted $name $value }}
{{- end }}
{{- end }}
{{- $list := list }}
{{- $named := dict }}
{{- range concat (include "flaskapp.serverEnv" . | fromJsonArray) (ternary (include "flaskapp.databaseEnv" .) "[]" (eq "true" (include "flaskapp.hasDatabase" .root)) | fromJsonArray) }}
{{- if not (or (hasKey $wanted .name) (hasKey $named .name)) }}
{{- $list = append $list . }}
{{- end }}
{{- $_ := set $named .name true }}
{{- end }}
{{- $pending := dict }}
{{- range $name, $value := $wanted }}
{{- if and (kindIs "map" $value) (hasKey $value "valueFrom") }}
{{- $list = append $list (merge (dict "name" $name) $value) }}
{{- else if not (kindIs "invalid" $value) }}
{{- if kindIs "map" $value }}
{{- $value = get $value "value" }}
{{- end }}
{{- $_ := set $pending $name (include "flaskapp.rendered" (dict "root" $root "value" $value)) }}
{{- end }}
{{- end }}
{{- range until (len $pending) }}
{{- range $name, $text := $pending }}
{{- $ready := true }}
{{- range regexFindAll "\\$\\([A-Za-z_][A-Za-z0-9_.-]*\\)" $text -1 }}
{{- $other := trimSuffix ")" (trimPrefix "$(" .) }}
{{- if and (hasKey $pending $other) (ne $other $name) }}
{{- $ready = false }}
{{- end }}
{{- end }}
{{- if $ready }}
{{- $list = append $list (dict "name" $name "value" $text) }}
{{- $_ := unset $pending $name }}
{{- end }}
{{- end }}
{{- end }}
{{- range $name, $text := $pending }}
{{- $list = append $list (dict "name" $name "value" $text) }}
{{- end }}
{{- toJson $list }}
{{- end }}

{{/* The variables that servers read, as a JSON list. Arguments: root, own. */}}
{{- define "flaskapp.serverEnv" -}}
{{- $values := .root.Values }}
{{- $list := list (dict "name" "PORT" "value" (get (.own | default dict) "port" | default $values.port | toString)) }}
{{- if $values.podSecurityContext.runAsUser }}
{{- /* A user whom the image doesn't know has no home. */}}
{{- $list = append $list (dict "name" "HOME" "value" "/tmp") }}
{{- end }}
{{- with $values.workers }}
{{- $list = append $list (dict "name" "WEB_CONCURRENCY" "value" (toString .)) }}
{{- end }}
{{- $options := list }}
{{- with $values.threads }}
{{- $options = append $options (printf "--threads=%v" .) }}
{{- end }}
{{- if ne (int $values.rollout.gracefulSeconds) 30 }}
{{- $options = append $options (printf "--graceful-timeout=%v" $values.rollout.gracefulSeconds) }}
{{- end }}
{{- with $options }}
{{- $list = append $list (dict "name" "GUNICORN_CMD_ARGS" "value" (join " " .)) }}
{{- end }}
{{- toJson $list }}
{{- end }}

{{/* The database's variables as a JSON list. A name that is empty is left out. */}}
{{- define "flaskapp.databaseEnv" -}}
{{- $names := .root.Values.database.env }}
{{- $database := include "flaskapp.database" .root | fromJson }}
{{- $account := get $database .account }}
{{- $plain := dict }}
{{- $secret := dict }}
{{- with $account.urlKey }}
{{- $_ := set $secret $names.url . }}
{{- end }}
{{- if $database.host }}
{{- $plain = dict $names.host $database.host $names.port $database.port $names.name $database.name $names.sslmode .root.Values.database.sslmode }}
{{- if .root.Values.database.caSecret }}
{{- $_ := set $plain $names.sslrootcert "/run/secrets/database-ca/ca.crt" }}
{{- end }}
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
{{- end }}
{{- $list := list }}
{{- range $name, $value := unset $plain "" }}
{{- if and $value (not (hasKey $secret $name)) }}
{{- $list = append $list (dict "name" $name "value" (toString $value)) }}
{{- end }}
{{- end }}
{{- range $name, $key := unset $secret "" }}
{{- $list = append $list (dict "name" $name "valueFrom" (dict "secretKeyRef" (dict "name" $account.secret "key" $key))) }}
{{- end }}
{{- toJson $list }}
{{- end }}

{{- define "flaskapp.envFrom" -}}
{{- with .Values.envFrom }}
{{ toYaml . }}
{{- end }}
{{- with .Values.config }}
- configMapRef: {name: {{ include "flaskapp.fullname" $ | quote }}}
{{- end }}
{{- with .Values.secrets.values }}
- secretRef: {name: {{ include "flaskapp.fullname" $ | quote }}}
{{- end }}
{{- with .Values.secrets.existingSecret }}
- secretRef: {name: {{ . | quote }}}
{{- end }}
{{- if .Values.secrets.generate }}
- secretRef: {name: {{ include "flaskapp.fullname" $ }}-generated}
{{- end }}
{{- with .Values.secrets.external }}
- secretRef: {name: {{ include "flaskapp.fullname" $ }}-external}
{{- end }}
{{- end }}

{{/* "true" where an account's credentials are files. Arguments: root, account. */}}
{{- define "flaskapp.databaseFiles" -}}
{{- $names := .root.Values.database.env }}
{{- $account := get (include "flaskapp.database" .root | fromJson) .account }}
{{- $read := or (and $names.username $account.usernameKey) (and $names.password $account.passwordKey) }}
{{- if and (include "flaskapp.hasDatabase" .root) $names.files $read }}true{{ end }}
{{- end }}
