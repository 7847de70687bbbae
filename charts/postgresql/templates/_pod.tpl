{{/* The server's container, before `primary.containerSpec`. */}}
{{- define "postgresql.server" -}}
{{- $primary := .Values.primary -}}
name: postgresql
image: {{ include "postgresql.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
command: [bash, /etc/postgresql/start.sh]
env:
  # Below the volume, so that the volume's own lost+found is no part of the data.
  - {name: PGDATA, value: /var/lib/postgresql/pgdata}
  # Images differ in where their programs look for the socket; and an arbitrary user has no name of its own.
  - {name: PGHOST, value: /var/run/postgresql}
  - {name: PGUSER, value: postgres}
ports:
  - {name: postgresql, containerPort: 5432, protocol: TCP}
# A server in recovery answers "rejecting" (1); only silence (2) counts against it.
startupProbe:
  exec: {command: [bash, -c, 'pg_isready --quiet --timeout=2 || [[ $? == 1 ]]']}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 150
livenessProbe:
  exec: {command: [bash, -c, 'pg_isready --quiet --timeout=5 || [[ $? == 1 ]]']}
  periodSeconds: 20
  timeoutSeconds: 10
  failureThreshold: 6
readinessProbe:
  exec: {command: [pg_isready, --quiet, --timeout=2]}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 3
lifecycle:
  # SIGTERM alone would wait for every client to leave; SIGINT is PostgreSQL's fast shutdown.
  preStop:
    exec: {command: [bash, -c, 'kill -INT 1']}
resources: {{- toYaml $primary.resources | nindent 2 }}
securityContext: {{- toYaml $primary.containerSecurityContext | nindent 2 }}
volumeMounts:
  - {name: data, mountPath: /var/lib/postgresql}
  - {name: config, mountPath: /etc/postgresql, readOnly: true}
  - {name: socket, mountPath: /var/run/postgresql}
  - {name: tmp, mountPath: /tmp}
  - {name: shm, mountPath: /dev/shm}
  {{- if .Values.tls.existingSecret }}
  - {name: tls, mountPath: /run/secrets/postgresql-tls, readOnly: true}
  {{- end }}
{{- end }}

{{/* The pod, before `primary.podSpec`. */}}
{{- define "postgresql.pod" -}}
{{- $primary := .Values.primary -}}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: {{ $primary.terminationGracePeriodSeconds }}
{{- with include "postgresql.pullSecrets" . | fromJsonArray }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $primary.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
securityContext: {{- toYaml $primary.podSecurityContext | nindent 2 }}
containers:
  - {{- include "postgresql.overlay" (dict "base" (include "postgresql.server" . | fromYaml) "over" $primary.containerSpec) | fromJson | toYaml | nindent 4 }}
  - name: roles
    image: {{ include "postgresql.image" . | quote }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    command: [bash, /etc/postgresql/roles.sh]
    env:
      - {name: PGHOST, value: /var/run/postgresql}
      - {name: PGUSER, value: postgres}
      - {name: DATABASE, value: {{ .Values.auth.database | quote }}}
      - {name: APP_ROLE, value: {{ .Values.auth.username | quote }}}
      - {name: OWNER_ROLE, value: {{ include "postgresql.ownerUsername" . | quote }}}
      - {name: SEPARATE_OWNER, value: {{ .Values.auth.separateOwner | quote }}}
      - {name: LOGIN_KEY, value: {{ include "postgresql.usernameKey" . | quote }}}
      - {name: OVERLAP_SECONDS, value: {{ .Values.auth.overlapSeconds | quote }}}
      - {name: APP_PASSWORD_KEY, value: {{ .Values.auth.secretKeys.password | quote }}}
      - {name: OWNER_PASSWORD_KEY, value: {{ .Values.auth.secretKeys.ownerPassword | quote }}}
    # The Service gets the pod when the roles are in place, so whoever reaches the port can log in. Asked until then
    # only: each look is a process, and on an idle node they would be most of the CPU.
    startupProbe:
      exec: {command: [test, -e, /tmp/applied]}
      periodSeconds: 2
      timeoutSeconds: 5
      failureThreshold: 1800
    resources: {{- toYaml .Values.roles.resources | nindent 6 }}
    securityContext: {{- toYaml $primary.containerSecurityContext | nindent 6 }}
    volumeMounts:
      - {name: config, mountPath: /etc/postgresql, readOnly: true}
      - {name: init, mountPath: /etc/postgresql-init, readOnly: true}
      - {name: passwords, mountPath: /run/secrets/postgresql, readOnly: true}
      - {name: socket, mountPath: /var/run/postgresql}
      - {name: roles-tmp, mountPath: /tmp}
      {{- if .Values.tls.existingSecret }}
      - {name: tls, mountPath: /run/secrets/postgresql-tls, readOnly: true}
      {{- end }}
volumes:
  - {name: config, configMap: {name: {{ include "postgresql.fullname" . | quote }}}}
  - {name: init, configMap: {name: {{ printf "%s-init" (include "postgresql.fullname" .) | quote }}, optional: true}}
  - {name: passwords, secret: {secretName: {{ include "postgresql.secretName" . | quote }}, defaultMode: 0440}}
  - {name: socket, emptyDir: {}}
  - {name: tmp, emptyDir: {}}
  - {name: roles-tmp, emptyDir: {}}
  - {name: shm, emptyDir: {medium: Memory}}
  {{- with .Values.tls.existingSecret }}
  - {name: tls, secret: {secretName: {{ . | quote }}, defaultMode: 0440}}
  {{- end }}
  {{- if not $primary.persistence.enabled }}
  - {name: data, emptyDir: {}}
  {{- end }}
{{- with $primary.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $primary.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $primary.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
