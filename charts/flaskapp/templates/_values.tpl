{{/*
First line of every template: a section that values empty (`rollout:` with everything below it commented out) is its
default, what an overlay removed by null is gone, and the application has its name. All are kept in .Values, so this costs
something only once.
*/}}
{{- define "flaskapp.prepare" -}}
{{- if not (hasKey .Values "_name") }}
{{- include "flaskapp.restore" (dict "values" .Values "defaults" (.Files.Get "files/defaults.yaml" | fromYaml) "whole" false) }}
{{- with .Subcharts.postgresql }}
{{- include "postgresql.prepare" . }}
{{- end }}
{{- range list .Values.config .Values.secrets.values .Values.files .Values.cronJobs .Values.components .Values.persistence }}
{{- $map := . }}
{{- range $key, $value := $map }}
{{- if kindIs "invalid" $value }}
{{- $_ := unset $map $key }}
{{- end }}
{{- end }}
{{- end }}
{{- /* Without pods of its own number (null) a component is scaled by somebody else. */}}
{{- range list .Values.cronJobs .Values.components .Values.persistence }}
{{- range $own := . }}
{{- range $key, $value := $own }}
{{- if and (kindIs "invalid" $value) (ne $key "replicas") }}
{{- $_ := unset $own $key }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- $_ := set .Values "_name" (.Values.nameOverride | default (include "flaskapp.keptName" .) | default .Release.Name | trunc 63 | trimSuffix "-") }}
{{- end }}
{{- end }}

{{/* Arguments: values, defaults (charts/schema.py says what `=` and `?` mean), whole (the section is empty). */}}
{{- define "flaskapp.restore" -}}
{{- $values := .values }}
{{- $whole := .whole }}
{{- range $key, $default := .defaults }}
{{- $name := $key | trimSuffix "?" | trimSuffix "=" }}
{{- $missing := or (not (hasKey $values $name)) (kindIs "invalid" (get $values $name)) }}
{{- if and $default (kindIs "map" $default) (not (hasSuffix "=" $key)) }}
{{- if $missing }}
{{- $_ := set $values $name (dict) }}
{{- end }}
{{- include "flaskapp.restore" (dict "values" (get $values $name) "defaults" $default "whole" $missing) }}
{{- else if and $missing (or $whole (not (hasSuffix "?" $key))) }}
{{- $_ := set $values $name $default }}
{{- end }}
{{- end }}
{{- end }}

{{/* A value as text: a whole number stays one, however YAML read it (1e+06). */}}
{{- define "flaskapp.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) }}{{ int64 . }}{{ else }}{{ . }}{{ end }}
{{- end }}

{{/* The same, with the templates in it evaluated. Arguments: root, value. */}}
{{- define "flaskapp.rendered" -}}
{{- $text := include "flaskapp.text" .value }}
{{- if contains "{{" $text }}{{ tpl $text .root }}{{ else }}{{ $text }}{{ end }}
{{- end }}

{{/* Maps as one map of texts, as JSON: a later one wins, null removes. Arguments: root, maps. */}}
{{- define "flaskapp.strings" -}}
{{- $root := .root }}
{{- $result := dict }}
{{- range .maps }}
{{- range $key, $value := . }}
{{- if kindIs "invalid" $value }}
{{- $_ := unset $result $key }}
{{- else }}
{{- $_ := set $result $key (include "flaskapp.rendered" (dict "root" $root "value" $value)) }}
{{- end }}
{{- end }}
{{- end }}
{{- toJson $result }}
{{- end }}

{{/* A map laid over another, as JSON: maps merge, lists and values replace, null removes. Arguments: base, over. */}}
{{- define "flaskapp.overlay" -}}
{{- $result := deepCopy (.base | default dict) }}
{{- range $key, $value := .over }}
{{- if kindIs "invalid" $value }}
{{- $_ := unset $result $key }}
{{- else if kindIs "map" $value }}
{{- $inner := get $result $key }}
{{- $_ := set $result $key (include "flaskapp.overlay" (dict "base" (ternary $inner dict (kindIs "map" $inner)) "over" $value) | fromJson) }}
{{- else }}
{{- $_ := set $result $key $value }}
{{- end }}
{{- end }}
{{- toJson $result }}
{{- end }}
