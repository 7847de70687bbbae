{{/*
First line of every template: a section that values empty (`primary:` with everything below it commented out), or that the
values of an earlier version don't have, is its default. In a map that Kubernetes reads, a key that is null stays away.
*/}}
{{- define "postgresql.prepare" -}}
{{- if not (hasKey .Values "_prepared") }}
{{- include "postgresql.restore" (dict "values" .Values "defaults" (.Files.Get "files/defaults.yaml" | fromYaml) "whole" false) }}
{{- $_ := set .Values "_prepared" true }}
{{- end }}
{{- end }}

{{/* Arguments: values, defaults (charts/schema.py says what `=` and `?` mean), whole (the section is empty). */}}
{{- define "postgresql.restore" -}}
{{- $values := .values }}
{{- $whole := .whole }}
{{- range $key, $default := .defaults }}
{{- $name := $key | trimSuffix "?" | trimSuffix "=" }}
{{- $missing := or (not (hasKey $values $name)) (kindIs "invalid" (get $values $name)) }}
{{- if and $default (kindIs "map" $default) (not (hasSuffix "=" $key)) }}
{{- if $missing }}
{{- $_ := set $values $name (dict) }}
{{- end }}
{{- include "postgresql.restore" (dict "values" (get $values $name) "defaults" $default "whole" $missing) }}
{{- else if and $missing (or $whole (not (hasSuffix "?" $key))) }}
{{- $_ := set $values $name $default }}
{{- end }}
{{- end }}
{{- end }}

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

{{- define "postgresql.claim" -}}
data-{{ include "postgresql.fullname" . }}-0
{{- end }}

{{- define "postgresql.selectorLabels" -}}
{{- dict "app.kubernetes.io/name" (include "postgresql.name" .) "app.kubernetes.io/instance" .Release.Name
  "app.kubernetes.io/component" "database" | toYaml }}
{{- end }}

{{/* Name, labels and annotations of an object. Arguments: root, suffix (of the name), annotations. */}}
{{- define "postgresql.metadata" -}}
{{- $root := .root }}
{{- $labels := include "postgresql.selectorLabels" $root | fromYaml }}
{{- $_ := set $labels "app.kubernetes.io/version" $root.Chart.AppVersion }}
{{- $_ := set $labels "app.kubernetes.io/managed-by" $root.Release.Service }}
{{- $_ := set $labels "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_") -}}
name: {{ printf "%s%s" (include "postgresql.fullname" $root) (.suffix | default "") | quote }}
labels: {{- include "postgresql.strings" (list $root.Values.commonLabels $labels) | fromJson | toYaml | nindent 2 }}
{{- with include "postgresql.strings" (list $root.Values.commonAnnotations .annotations) | fromJson }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* A value as text: a whole number stays one, however YAML read it (1e+06). */}}
{{- define "postgresql.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) (lt . 9007199254740993.0) }}{{ int64 . }}{{ else }}{{ . }}{{ end }}
{{- end }}

{{/* A list of maps as one map of texts, as JSON: a later one wins, null leaves a key out. */}}
{{- define "postgresql.strings" -}}
{{- $result := dict }}
{{- range . }}
{{- range $key, $value := . }}
{{- if kindIs "invalid" $value }}
{{- $_ := unset $result $key }}
{{- else }}
{{- $_ := set $result $key (include "postgresql.text" $value) }}
{{- end }}
{{- end }}
{{- end }}
{{- toJson $result }}
{{- end }}

{{/* A map laid over another, as JSON: maps merge, lists and values replace, null removes. Arguments: base, over. */}}
{{- define "postgresql.overlay" -}}
{{- $result := deepCopy .base }}
{{- range $key, $value := .over }}
{{- if kindIs "invalid" $value }}
{{- $_ := unset $result $key }}
{{- else if and (kindIs "map" $value) (kindIs "map" (get $result $key)) }}
{{- $_ := set $result $key (include "postgresql.overlay" (dict "base" (get $result $key) "over" $value) | fromJson) }}
{{- else }}
{{- $_ := set $result $key $value }}
{{- end }}
{{- end }}
{{- toJson $result }}
{{- end }}

{{/* `global.imageRegistry` takes the place of the repository's registry. */}}
{{- define "postgresql.image" -}}
{{- $repository := .Values.image.repository }}
{{- with .Values.global.imageRegistry }}
{{- $repository = regexReplaceAll "^(localhost|[^/]*[.:][^/]*)/" $repository "" | printf "%s/%s" (trimSuffix "/" .) }}
{{- end }}
{{- with .Values.image }}
{{- if .digest }}{{ $repository }}@{{ .digest }}{{ else }}{{ $repository }}:{{ include "postgresql.text" .tag }}{{ end }}
{{- end }}
{{- end }}

{{/* The release's and the chart's own, each by its name or as an object; as JSON. */}}
{{- define "postgresql.pullSecrets" -}}
{{- $result := list }}
{{- range concat (.Values.global.imagePullSecrets | default list) .Values.image.pullSecrets }}
{{- $result = append $result (ternary . (dict "name" .) (kindIs "map" .)) }}
{{- end }}
{{- uniq $result | toJson }}
{{- end }}

{{- define "postgresql.secretName" -}}
{{- .Values.auth.existingSecret | default (include "postgresql.fullname" .) }}
{{- end }}

{{/* PostgreSQL cuts a longer name off. */}}
{{- define "postgresql.ownerUsername" -}}
{{- .Values.auth.ownerUsername | default (printf "%s_owner" .Values.auth.username | trunc 63) }}
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

{{/* A Kubernetes quantity of memory in MiB, in any form: 384Mi, 0.5Gi, 512e6, bytes. */}}
{{- define "postgresql.mebibytes" -}}
{{- $text := toString . }}
{{- $unit := regexFind "[A-Za-z]+$" $text }}
{{- $bytes := get (dict "" 1 "n" 1e-9 "u" 1e-6 "m" 1e-3 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18
  "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "Pi" 1125899906842624 "Ei" 1152921504606846976) $unit }}
{{- divf (mulf (trimSuffix $unit $text | float64) $bytes) 1048576 }}
{{- end }}
