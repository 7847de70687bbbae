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
{{- $container := fromYaml .container }}
{{- /* What is meant for the application's container is not for a backup's. */}}
{{- $isApplication := eq $container.image (include "flaskapp.image" .root) }}
{{- $more := ternary $settings.containerSpec (get (.own | default dict) "containerSpec" | default dict) $isApplication }}
{{- $containers := list (include "flaskapp.overlay" (dict "base" $container "over" $more) | fromJson) }}
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
{{- $secrets := list }}
{{- range concat (.root.Values.global.imagePullSecrets | default list) .root.Values.image.pullSecrets }}
{{- $secrets = append $secrets (ternary . (dict "name" .) (kindIs "map" .)) }}
{{- end }}
{{- with uniq $secrets }}
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
- {name: files, mountPath: {{ $path }}, subPath: {{ include "flaskapp.fileKey" $path | quote }}, readOnly: true}
{{- end }}
{{- $component := .component }}
{{- range $name, $volume := $values.persistence }}
{{- if has $component ($volume.components | default (list "web")) }}
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
    secretName: {{ $account.secret | quote }}
    defaultMode: 0440
    items:
      {{- with $account.usernameKey }}
      - {key: {{ . | quote }}, path: username}
      {{- end }}
      {{- with $account.passwordKey }}
      - {key: {{ . | quote }}, path: password}
      {{- end }}
{{- end }}
{{- end }}
{{- if include "flaskapp.hasDatabase" .root }}
{{- with $values.database.caSecret }}
- {name: database-ca, secret: {secretName: {{ . | quote }}, defaultMode: 0440, items: [{key: ca.crt, path: ca.crt}]}}
{{- end }}
{{- end }}
{{- if $values.files }}
- {name: files, configMap: {name: {{ include "flaskapp.fullname" .root }}-files}}
{{- end }}
{{- $component := .component }}
{{- range $name, $volume := $values.persistence }}
{{- if has $component ($volume.components | default (list "web")) }}
- {name: {{ $name | quote }}, persistentVolumeClaim: {claimName: {{ $volume.existingClaim | default (printf "%s-%s" (include "flaskapp.fullname" $root) $name) | quote }}}}
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
