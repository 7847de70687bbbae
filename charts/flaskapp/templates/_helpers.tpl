{{/* Version 0.2.0 called every application `flaskapp`. Selectors can't change, so its installations stay that. */}}
{{- define "flaskapp.keptName" -}}
{{- $name := ternary .Release.Name (printf "%s-flaskapp" .Release.Name) (contains "flaskapp" .Release.Name) | trunc 45 | trimSuffix "-" }}
{{- $kept := lookup "apps/v1" "Deployment" .Release.Namespace $name | default dict }}
{{- if eq "flaskapp" (dig "spec" "selector" "matchLabels" "app.kubernetes.io/name" "" $kept) }}flaskapp{{ end }}
{{- end }}

{{- define "flaskapp.name" -}}
{{- .Values._name }}
{{- end }}

{{/* The release's name alone when it says the application's already. 45 characters leave room for what is appended. */}}
{{- define "flaskapp.fullname" -}}
{{- $name := include "flaskapp.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 45 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 45 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 45 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* The name of a further object, shortened where it is too long. Arguments: root, name, limit. */}}
{{- define "flaskapp.childName" -}}
{{- $full := printf "%s-%s" (include "flaskapp.fullname" .root) .name }}
{{- if gt (len $full) (int .limit) }}
{{- $full = printf "%s-%s" ($full | trunc (sub .limit 9 | int) | trimSuffix "-") (sha256sum $full | trunc 8) }}
{{- end }}
{{- $full }}
{{- end }}

{{/* What a selector may use: never changes during the life of a release. */}}
{{- define "flaskapp.instanceLabels" -}}
app.kubernetes.io/name: {{ include "flaskapp.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "flaskapp.selectorLabels" -}}
{{ include "flaskapp.instanceLabels" . }}
app.kubernetes.io/component: web
{{- end }}

{{/*
What an object of this chart is called and labeled. Arguments: root, and where they apply: name (default: the release's full
name), component, labels, annotations (maps of the values), keep ("true": helm leaves the object where it is).
*/}}
{{- define "flaskapp.metadata" -}}
{{- $root := .root }}
{{- $labels := include "flaskapp.instanceLabels" $root | fromYaml }}
{{- $_ := set $labels "app.kubernetes.io/version" (include "flaskapp.version" $root) }}
{{- $_ := set $labels "app.kubernetes.io/managed-by" $root.Release.Service }}
{{- $_ := set $labels "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_") }}
{{- with .component }}
{{- $_ := set $labels "app.kubernetes.io/component" . }}
{{- end }}
{{- $more := include "flaskapp.strings" (dict "root" $root "maps" (list $root.Values.commonLabels .labels)) | fromJson }}
{{- $annotations := include "flaskapp.strings" (dict "root" $root "maps" (list $root.Values.commonAnnotations .annotations)) | fromJson -}}
name: {{ .name | default (include "flaskapp.fullname" $root) | quote }}
labels: {{- merge $labels $more | toYaml | nindent 2 }}
{{- if .keep }}
{{- $_ := set $annotations "helm.sh/resource-policy" "keep" }}
{{- end }}
{{- with $annotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* What runs, as a label takes it: the tag, or the first digits of the digest. */}}
{{- define "flaskapp.version" -}}
{{- $version := include "flaskapp.text" (.Values.image.tag | default "") | default (.Values.image.digest | trimPrefix "sha256:" | trunc 12) }}
{{- regexReplaceAll "^[^A-Za-z0-9]+|[^A-Za-z0-9]+$" ($version | trunc 63) "" }}
{{- end }}

{{/* A reference to an image. Arguments: root, image (repository, tag, digest). */}}
{{- define "flaskapp.reference" -}}
{{- $repository := .image.repository }}
{{- with .root.Values.global.imageRegistry }}
{{- $first := splitList "/" $repository | first }}
{{- if and (contains "/" $repository) (or (contains "." $first) (contains ":" $first) (eq $first "localhost")) }}
{{- $repository = trimPrefix (printf "%s/" $first) $repository }}
{{- end }}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) $repository }}
{{- end }}
{{- if .image.digest }}{{ $repository }}@{{ .image.digest }}{{ else }}{{ $repository }}:{{ include "flaskapp.text" .image.tag }}{{ end }}
{{- end }}

{{- define "flaskapp.image" -}}
{{- include "flaskapp.reference" (dict "root" . "image" .Values.image) }}
{{- end }}

{{- define "flaskapp.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "flaskapp.fullname" .) }}
{{- else }}
{{- .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{/* A path as a key of a ConfigMap. */}}
{{- define "flaskapp.fileKey" -}}
{{- trimPrefix "/" . | replace "/" "--" }}
{{- end }}

{{/* "true" when the application has a database. */}}
{{- define "flaskapp.hasDatabase" -}}
{{- $database := .Values.database }}
{{- if or .Values.postgresql.enabled $database.host (and $database.secretKeys.url (or $database.existingSecret $database.externalSecret)) }}true{{ end }}
{{- end }}

{{- define "flaskapp.migrationMode" -}}
{{- ternary .Values.migrations.mode "none" (not (empty .Values.migrations.command)) }}
{{- end }}

{{/*
The database as JSON, bundled or external, in one form. `app` and `owner` each have
username, secret, and the names of its keys: usernameKey, passwordKey, urlKey.
*/}}
{{- define "flaskapp.database" -}}
{{- if .Values.postgresql.enabled }}
{{- $postgresql := .Subcharts.postgresql }}
{{- $auth := $postgresql.Values.auth }}
{{- $secret := include "postgresql.secretName" $postgresql }}
{{- dict
  "host" (include "postgresql.fullname" $postgresql)
  "port" $postgresql.Values.service.port
  "name" $auth.database
  "maxConnections" $postgresql.Values.maxConnections
  "app" (dict "username" $auth.username "usernameKey" (include "postgresql.usernameKey" $postgresql) "secret" $secret
    "passwordKey" $auth.secretKeys.password "urlKey" $auth.secretKeys.url)
  "owner" (dict "username" (include "postgresql.ownerUsername" $postgresql) "usernameKey" "" "secret" $secret
    "passwordKey" $auth.secretKeys.ownerPassword "urlKey" $auth.secretKeys.ownerUrl)
  | toJson }}
{{- else }}
{{- $database := .Values.database }}
{{- $keys := $database.secretKeys }}
{{- $secret := $database.existingSecret | default (ternary (printf "%s-database" (include "flaskapp.fullname" .)) "" (not (empty $database.externalSecret))) }}
{{- $app := dict "username" $database.username "usernameKey" $keys.username "secret" $secret
  "passwordKey" $keys.password "urlKey" $keys.url }}
{{- $owner := $app }}
{{- with $database.owner }}
{{- if or .username .secretKeys.username .secretKeys.url }}
{{- $owner = dict "username" .username "usernameKey" .secretKeys.username
  "secret" (default $secret .existingSecret)
  "passwordKey" .secretKeys.password "urlKey" .secretKeys.url }}
{{- end }}
{{- end }}
{{- dict "host" $database.host "port" $database.port "name" $database.name
  "maxConnections" $database.maxConnections "app" $app "owner" $owner | toJson }}
{{- end }}
{{- end }}

{{/*
The number of pods that stays in a Deployment beside an autoscaler: none, but for the hand-over. A field that
helm alone owns falls back to 1 when helm lets go of it, so helm keeps the live number until the autoscaler has
set one. A client-side upgrade (Helm 3) removes what it once set, whoever owns it, so there it always stays.
Empty without a cluster. Arguments: root, name.
*/}}
{{- define "flaskapp.handedOverReplicas" -}}
{{- $live := lookup "apps/v1" "Deployment" .root.Release.Namespace .name }}
{{- if $live }}
{{- $keep := true }}
{{- $clientSide := false }}
{{- range $live.metadata.managedFields }}
{{- if and (eq .manager "helm") (eq .operation "Update") }}
{{- $clientSide = true }}
{{- else if and (ne .manager "helm") (hasKey (dig "f:spec" dict .fieldsV1) "f:replicas") }}
{{- $keep = false }}
{{- end }}
{{- end }}
{{- if or $keep $clientSide }}{{ $live.spec.replicas | default "" }}{{ end }}
{{- end }}
{{- end }}

{{/* The data of the Secret with random settings that is there already, as JSON. */}}
{{- define "flaskapp.generatedSecret" -}}
{{- $secret := lookup "v1" "Secret" .Release.Namespace (printf "%s-generated" (include "flaskapp.fullname" .)) | default dict }}
{{- $secret.data | default dict | toJson }}
{{- end }}

{{/* "true" when `lookup` reaches a cluster: see docs/adr/0001. */}}
{{- define "flaskapp.clusterAnswers" -}}
{{- if or (lookup "v1" "ServiceAccount" .Release.Namespace "default") (lookup "v1" "Namespace" "" "default") }}true{{ end }}
{{- end }}
