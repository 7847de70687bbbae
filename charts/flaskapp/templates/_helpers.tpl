{{- define "flaskapp.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The release's name alone when it says `flaskapp` already. 45 characters leave room for what is appended. */}}
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

{{/* What a selector may use: never changes during the life of a release. */}}
{{- define "flaskapp.instanceLabels" -}}
app.kubernetes.io/name: {{ include "flaskapp.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "flaskapp.selectorLabels" -}}
{{ include "flaskapp.instanceLabels" . }}
app.kubernetes.io/component: web
{{- end }}

{{- define "flaskapp.labels" -}}
{{ include "flaskapp.instanceLabels" . }}
app.kubernetes.io/version: {{ include "flaskapp.tag" . | trunc 63 | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* A value as text: a whole number stays one, however YAML read it (1e+06). */}}
{{- define "flaskapp.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) }}{{ int64 . }}{{ else }}{{ . }}{{ end }}
{{- end }}

{{- define "flaskapp.tag" -}}
{{- include "flaskapp.text" (.Values.image.tag | default .Chart.AppVersion) }}
{{- end }}

{{/* A reference to an image. Arguments: root, image (repository, tag). */}}
{{- define "flaskapp.reference" -}}
{{- printf "%s:%v" .image.repository .image.tag }}
{{- end }}

{{- define "flaskapp.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ include "flaskapp.tag" $ }}{{ end }}
{{- end }}
{{- end }}

{{- define "flaskapp.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "flaskapp.fullname" .) }}
{{- else }}
{{- .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{/* Pods that are there whatever the load. */}}
{{- define "flaskapp.leastPods" -}}
{{- ternary .Values.autoscaling.minReplicas .Values.replicas .Values.autoscaling.enabled }}
{{- end }}

{{/* A path as a key of a ConfigMap. */}}
{{- define "flaskapp.fileKey" -}}
{{- trimPrefix "/" . | replace "/" "--" }}
{{- end }}

{{/* "true" when the application has a database. */}}
{{- define "flaskapp.hasDatabase" -}}
{{- if .Values.database.enabled }}true{{ end }}
{{- end }}

{{- define "flaskapp.migrationMode" -}}
{{- ternary .Values.migrations.mode "none" .Values.database.enabled }}
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
The number of pods that stays in the Deployment beside an autoscaler: none, but for the hand-over. A field that
helm alone owns falls back to 1 when helm lets go of it, so helm keeps the live number until the autoscaler has
set one. A client-side upgrade (Helm 3) removes what it once set, whoever owns it, so there it always stays.
Empty without a cluster.
*/}}
{{- define "flaskapp.handedOverReplicas" -}}
{{- $live := lookup "apps/v1" "Deployment" .Release.Namespace (include "flaskapp.fullname" .) }}
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
