{{/* Refuses what would leave the data of the server that runs behind; the way out is in docs/postgresql.md. */}}
{{- define "postgresql.validateLive" -}}
{{- $name := include "postgresql.fullname" . }}
{{- $live := lookup "apps/v1" "StatefulSet" .Release.Namespace $name }}
{{- if $live }}
{{- include "postgresql.validateIdentity" (dict "root" . "live" $live) }}
{{- include "postgresql.validateVolume" (dict "root" . "live" $live) }}
{{- end }}
{{- if and .Release.IsUpgrade (not $live) }}
{{- range $live := dig "items" list (lookup "apps/v1" "StatefulSet" .Release.Namespace "") }}
{{- $labels := $live.metadata.labels | default dict }}
{{- $liveIsOurs := hasPrefix (printf "%s-" $.Chart.Name) (get $labels "helm.sh/chart") }}
{{- if and $liveIsOurs (eq (get $labels "app.kubernetes.io/instance") $.Release.Name) (eq (get $labels "app.kubernetes.io/component") "database") }}
{{- fail (printf "postgresql.fullnameOverride: this release's server is called %s, and an empty one called %s would take its place; set it to %s, or move the data as docs/postgresql.md says" $live.metadata.name $name $live.metadata.name) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Arguments: root, live (the StatefulSet). */}}
{{- define "postgresql.validateIdentity" -}}
{{- $auth := .root.Values.auth }}
{{- $name := include "postgresql.name" .root }}
{{- $liveName := get .live.spec.selector.matchLabels "app.kubernetes.io/name" }}
{{- if ne $name $liveName }}
{{- fail (printf "postgresql.nameOverride: %s, and the server was made as %s, which Kubernetes lets nobody change; set it back" $name $liveName) }}
{{- end }}
{{- $liveEnv := dict }}
{{- range $live := .live.spec.template.spec.containers }}
{{- range ternary $live.env list (eq $live.name "roles") }}
{{- $_ := set $liveEnv .name .value }}
{{- end }}
{{- end }}
{{- range $key, $liveVariable := dict "database" "DATABASE" "username" "APP_ROLE" "ownerUsername" "OWNER_ROLE" }}
{{- $value := ternary (include "postgresql.ownerUsername" $.root) (get $auth $key) (eq $key "ownerUsername") }}
{{- if ne $value (get $liveEnv $liveVariable) }}
{{- fail (printf "postgresql.auth.%s: %s, and the server has the data under the name %s; set it back, or rename it in the server first, as docs/postgresql.md says" $key $value (get $liveEnv $liveVariable)) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Arguments: root, live (the StatefulSet). */}}
{{- define "postgresql.validateVolume" -}}
{{- $persistence := .root.Values.primary.persistence }}
{{- $liveClaims := .live.spec.volumeClaimTemplates | default list }}
{{- if ne $persistence.enabled (not (empty $liveClaims)) }}
{{- fail (printf "postgresql.primary.persistence.enabled: %t, and the server was made otherwise, which Kubernetes lets nobody change; set it back, or move the data as docs/postgresql.md says" $persistence.enabled) }}
{{- end }}
{{- range $liveClaims }}
{{- $liveSize := .spec.resources.requests.storage }}
{{- if ne (include "postgresql.mebibytes" $persistence.size) (include "postgresql.mebibytes" $liveSize) }}
{{- fail (printf "postgresql.primary.persistence.size: %s, and the volume was made with %s, which Kubernetes lets nobody change here; set it back, or grow the volume as docs/postgresql.md says" (toString $persistence.size) $liveSize) }}
{{- end }}
{{- $liveClass := .spec.storageClassName | default "" }}
{{- if ne $persistence.storageClass $liveClass }}
{{- fail (printf "postgresql.primary.persistence.storageClass: %q, and the volume was made with %q, which Kubernetes lets nobody change; set it back, or move the data as docs/postgresql.md says" $persistence.storageClass $liveClass) }}
{{- end }}
{{- $liveModes := .spec.accessModes | join ", " }}
{{- if ne ($persistence.accessModes | join ", ") $liveModes }}
{{- fail (printf "postgresql.primary.persistence.accessModes: %s, and the volume was made with %s, which Kubernetes lets nobody change; set it back, or move the data as docs/postgresql.md says" ($persistence.accessModes | join ", ") $liveModes) }}
{{- end }}
{{- end }}
{{- end }}
