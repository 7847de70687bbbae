{{- define "postgresql.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The release's name alone when it says `postgresql` already. 52 characters leave room for what Kubernetes appends. */}}
{{- define "postgresql.fullname" -}}
{{- $name := include "postgresql.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "postgresql.selectorLabels" -}}
app.kubernetes.io/name: {{ include "postgresql.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: database
{{- end }}

{{- define "postgresql.labels" -}}
{{ include "postgresql.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "postgresql.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | toString }}{{ end }}
{{- end }}
{{- end }}

{{- define "postgresql.secretName" -}}
{{- .Values.auth.existingSecret | default (include "postgresql.fullname" .) }}
{{- end }}

{{- define "postgresql.ownerUsername" -}}
{{- .Values.auth.ownerUsername | default (printf "%s_owner" .Values.auth.username) }}
{{- end }}

{{/* The data of the Secret that an earlier installation left, as JSON; empty where helm does not reach the cluster. */}}
{{- define "postgresql.keptSecret" -}}
{{- $secret := lookup "v1" "Secret" .Release.Namespace (include "postgresql.secretName" .) | default dict }}
{{- $secret.data | default dict | toJson }}
{{- end }}

{{/*
"true" when `lookup` reaches a cluster. Every namespace has the ServiceAccount `default`; one that
helm is about to create has not, and who may create a namespace may read one (docs/adr/0001).
*/}}
{{- define "postgresql.clusterAnswers" -}}
{{- if or (lookup "v1" "ServiceAccount" .Release.Namespace "default") (lookup "v1" "Namespace" "" "default") }}true{{ end }}
{{- end }}

{{/* The given password, the kept one, or a new one. Arguments: root, password, key. */}}
{{- define "postgresql.password" -}}
{{- $kept := get (include "postgresql.keptSecret" .root | fromJson) .key }}
{{- if .password }}{{ .password }}{{ else if $kept }}{{ b64dec $kept }}{{ else }}{{ randAlphaNum 32 }}{{ end }}
{{- end }}

{{/* Key of the application's login in the Secret; empty where the login is always `auth.username`. */}}
{{- define "postgresql.usernameKey" -}}
{{- if .Values.auth.existingSecret }}{{ .Values.auth.secretKeys.username }}{{ else }}username{{ end }}
{{- end }}

{{/*
The login of the application: `auth.username`, or the same with `_2`. Another password comes with the other login, so
the one before works on until every pod has moved (docs/adr/0006). Arguments: root, password.
*/}}
{{- define "postgresql.login" -}}
{{- $auth := .root.Values.auth }}
{{- $kept := include "postgresql.keptSecret" .root | fromJson }}
{{- $second := printf "%s_2" $auth.username }}
{{- $isSecond := eq (get $kept "username" | b64dec) $second }}
{{- $changed := and (hasKey $kept $auth.secretKeys.password) (ne (get $kept $auth.secretKeys.password | b64dec) .password) }}
{{- ternary $auth.username $second (eq $isSecond $changed) }}
{{- end }}

{{/* A URL in which any password is safe. Arguments: root, username, password. */}}
{{- define "postgresql.url" -}}
{{- $auth := .root.Values.auth }}
{{- $password := urlquery .password | replace "+" "%20" }}
{{- printf "%s://%s:%s@%s:%v/%s" $auth.urlScheme .username $password (include "postgresql.fullname" .root) .root.Values.service.port $auth.database }}
{{- end }}

{{/* A Kubernetes quantity of memory in MiB. */}}
{{- define "postgresql.mebibytes" -}}
{{- $text := toString . }}
{{- $number := regexFind "^[0-9]+" $text | float64 }}
{{- $unit := regexReplaceAll "^[0-9.]+" $text "" }}
{{- $bytes := get (dict "" 1 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776) $unit }}
{{- divf (mulf $number $bytes) 1048576 | floor | int64 }}
{{- end }}
