{{/* What every pod of a release is made of. `account` is app or owner: whose credentials of the database are read. */}}

{{/*
A pod template, as YAML: metadata and spec. Arguments: root; own (settings that win over the ones of all pods); component;
container (the main one, as YAML); and where they apply: init (containers that the chart starts before, as YAML), accounts,
volumes (further ones, as YAML), annotations, spec (further fields),
ends ("true" in a Job: its sidecars must not keep it alive).
*/}}
{{- define "flaskapp.podTemplate" -}}
{{- $root := .root }}
{{- $settings := include "flaskapp.podSettings" (dict "root" .root "own" .own) | fromJson }}
{{- $labels := include "flaskapp.strings" (dict "root" .root "maps" (list .root.Values.commonLabels $settings.podLabels)) | fromJson }}
{{- $labels = merge (include "flaskapp.instanceLabels" .root | fromYaml) (dict "app.kubernetes.io/component" .component) $labels }}
{{- $init := concat ($settings.initContainers | default list) (.init | default "" | fromYamlArray) }}
{{- $containers := list (include "flaskapp.overlay" (dict "base" (fromYaml .container) "over" $settings.containerSpec) | fromJson) }}
{{- if .ends }}
{{- range $settings.sidecars }}
{{- $init = append $init (merge (dict "restartPolicy" "Always") .) }}
{{- end }}
{{- else }}
{{- $containers = concat $containers ($settings.sidecars | default list) }}
{{- end }}
{{- $spec := dict
  "serviceAccountName" (include "flaskapp.serviceAccountName" .root)
  "automountServiceAccountToken" false
  "enableServiceLinks" false
  "securityContext" $settings.podSecurityContext
  "containers" $containers
  "volumes" (include "flaskapp.volumes" (dict "root" .root "accounts" (.accounts | default list) "component" .component "more" .volumes) | fromYamlArray)
}}
{{- if .ends }}
{{- $_ := set $spec "restartPolicy" "Never" }}
{{- end }}
{{- with $init }}
{{- $_ := set $spec "initContainers" . }}
{{- end }}
{{- with concat (.root.Values.global.imagePullSecrets | default list) .root.Values.image.pullSecrets | uniq }}
{{- $_ := set $spec "imagePullSecrets" . }}
{{- end }}
{{- range list "priorityClassName" "nodeSelector" "tolerations" "affinity" }}
{{- if get $settings . }}
{{- $_ := set $spec . (get $settings .) }}
{{- end }}
{{- end }}
{{- $spec = mergeOverwrite $spec (.spec | default dict) }}
{{- $annotations := include "flaskapp.strings" (dict "root" .root "maps" (list .root.Values.commonAnnotations .annotations $settings.podAnnotations)) | fromJson -}}
metadata:
  labels: {{- toYaml $labels | nindent 4 }}
  {{- with $annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec: {{- include "flaskapp.overlay" (dict "base" $spec "over" $settings.podSpec) | fromJson | toYaml | nindent 2 }}
{{- end }}

{{/*
The settings of a workload's pods, as JSON: its own, then the ones of all pods. Labels, annotations and the two `…Spec`
merge. Arguments: root, own.
*/}}
{{- define "flaskapp.podSettings" -}}
{{- $own := .own | default dict }}
{{- $settings := dict }}
{{- range list "podLabels" "podAnnotations" "podSpec" "containerSpec" "resources" "sidecars" "initContainers" "nodeSelector" "tolerations" "affinity" "priorityClassName" "podSecurityContext" "containerSecurityContext" }}
{{- $all := get $.root.Values . }}
{{- if or (not (hasKey $own .)) (kindIs "invalid" (get $own .)) }}
{{- $_ := set $settings . $all }}
{{- else if has . (list "podLabels" "podAnnotations" "podSpec" "containerSpec") }}
{{- $_ := set $settings . (include "flaskapp.overlay" (dict "base" $all "over" (get $own .)) | fromJson) }}
{{- else }}
{{- $_ := set $settings . (get $own .) }}
{{- end }}
{{- end }}
{{- toJson $settings }}
{{- end }}

{{/*
A container in the application's image, as YAML. Arguments: root, account, own, component, name, command and args (empty: the
image's own), moreEnv.
*/}}
{{- define "flaskapp.container" -}}
{{- $root := .root -}}
{{- $settings := include "flaskapp.podSettings" (dict "root" .root "own" .own) | fromJson -}}
name: {{ .name }}
image: {{ include "flaskapp.image" $root | quote }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
{{- with .command }}
command: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .args }}
args: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with include "flaskapp.envFrom" $root | trim }}
envFrom: {{- . | nindent 2 }}
{{- end }}
{{- with concat (include "flaskapp.env" . | fromJsonArray) (.moreEnv | default list) }}
env: {{- toYaml . | nindent 2 }}
{{- end }}
resources: {{- toYaml $settings.resources | nindent 2 }}
securityContext: {{- toYaml $settings.containerSecurityContext | nindent 2 }}
volumeMounts: {{- include "flaskapp.volumeMounts" . | nindent 2 }}
{{- end }}

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
{{- range concat (include "flaskapp.serverEnv" . | fromJsonArray) (ternary (include "flaskapp.databaseEnv" .) "[]" (eq "true" (include "flaskapp.hasDatabase" .root)) | fromJsonArray) }}
{{- if not (hasKey $wanted .name) }}
{{- $list = append $list . }}
{{- end }}
{{- end }}
{{- $pending := dict }}
{{- range $name, $value := $wanted }}
{{- if kindIs "map" $value }}
{{- $list = append $list (merge (dict "name" $name) $value) }}
{{- else if not (kindIs "invalid" $value) }}
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
{{- if $value }}
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

{{/* "true" where an account's credentials are files. Arguments: root, account. */}}
{{- define "flaskapp.databaseFiles" -}}
{{- $names := .root.Values.database.env }}
{{- $account := get (include "flaskapp.database" .root | fromJson) .account }}
{{- $read := or (and $names.username $account.usernameKey) (and $names.password $account.passwordKey) }}
{{- if and (include "flaskapp.hasDatabase" .root) $names.files $read }}true{{ end }}
{{- end }}

{{/* Arguments: root, account, component. */}}
{{- define "flaskapp.volumeMounts" -}}
{{- $values := .root.Values -}}
- {name: tmp, mountPath: /tmp}
{{- if include "flaskapp.databaseFiles" . }}
- {name: database-{{ .account }}, mountPath: /run/secrets/database, readOnly: true}
{{- end }}
{{- if and (include "flaskapp.hasDatabase" .root) $values.database.caSecret }}
- {name: database-ca, mountPath: /run/secrets/database-ca, readOnly: true}
{{- end }}
{{- range $path, $text := $values.files }}
{{- if not (kindIs "invalid" $text) }}
- {name: files, mountPath: {{ $path }}, subPath: {{ include "flaskapp.fileKey" $path }}, readOnly: true}
{{- end }}
{{- end }}
{{- $component := .component }}
{{- range $name, $volume := $values.persistence }}
{{- if and $volume (has $component ($volume.components | default (list "web"))) }}
- {{ dict "name" $name "mountPath" $volume.mountPath | merge (pick $volume "subPath") | toJson }}
{{- end }}
{{- end }}
{{- with $values.volumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Arguments: root, accounts (whose credentials the containers of the pod read), component, more (further volumes, as YAML). */}}
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
{{- if include "flaskapp.hasDatabase" .root }}
{{- with $values.database.caSecret }}
- {name: database-ca, secret: {secretName: {{ . }}, defaultMode: 0440, items: [{key: ca.crt, path: ca.crt}]}}
{{- end }}
{{- end }}
{{- if $values.files }}
- {name: files, configMap: {name: {{ include "flaskapp.fullname" .root }}-files}}
{{- end }}
{{- $component := .component }}
{{- range $name, $volume := $values.persistence }}
{{- if and $volume (has $component ($volume.components | default (list "web"))) }}
- {name: {{ $name }}, persistentVolumeClaim: {claimName: {{ $volume.existingClaim | default (printf "%s-%s" (include "flaskapp.fullname" $root) $name) }}}}
{{- end }}
{{- end }}
{{- with $values.volumes }}
{{ toYaml . }}
{{- end }}
{{- with .more }}
{{ . }}
{{- end }}
{{- end }}

{{/* Checksums of what the pods read from objects of this chart. */}}
{{- define "flaskapp.checksums" -}}
checksum/config: {{ list (include "flaskapp.strings" (dict "root" . "maps" (list .Values.config))) .Values.files | toJson | sha256sum }}
checksum/secret: {{ .Values.secrets.values | toJson | sha256sum }}
{{- /* What a variable with the bundled server's URL is made of; a new password by itself moves pods that read no files. */}}
{{- if .Values.postgresql.enabled }}
{{- $database := include "flaskapp.database" . | fromJson }}
{{- $auth := .Subcharts.postgresql.Values.auth }}
{{- $password := ternary "" $auth.password (and .Values.database.env.files (not .Values.database.env.url)) }}
checksum/database: {{ list .Release.Name (omit $database "maxConnections") $auth.urlScheme $password | toJson | sha256sum }}
{{- end }}
{{- end }}
