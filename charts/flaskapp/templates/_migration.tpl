{{/* The pod of the migration. First it waits for the database, so that no attempt is spent on a server that is still starting. */}}
{{- define "flaskapp.migrationPod" -}}
{{- $hook := eq .Values.migrations.mode "hook" }}
{{- $owner := dict "root" . "account" "owner" -}}
metadata:
  labels:
    {{- include "flaskapp.instanceLabels" . | nindent 4 }}
    app.kubernetes.io/component: migration
  annotations:
    {{- include "flaskapp.checksums" . | nindent 4 }}
    flaskapp/migration-retry: {{ .Values.migrations.retry | quote }}
spec:
  {{- /* A hook runs before the release's own account exists. */}}
  serviceAccountName: {{ ternary "default" (include "flaskapp.serviceAccountName" .) (and $hook .Values.serviceAccount.create) }}
  {{- include "flaskapp.podSettings" . | nindent 2 }}
  restartPolicy: Never
  {{- with include "flaskapp.waitForDatabase" $owner }}
  initContainers:
    - {{ . | indent 6 | trim }}
  {{- end }}
  containers:
    - {{ include "flaskapp.container" (merge (dict "name" "migrate" "command" .Values.migrations.command) $owner) | indent 6 | trim }}
  volumes: {{- include "flaskapp.volumes" (dict "root" . "accounts" (list "owner")) | nindent 4 }}
{{- end }}

{{/*
A container that waits for the database's port; Python is in every image that serves Flask. Empty where a proxy
beside the application listens: that starts later. Arguments: root, account.
*/}}
{{- define "flaskapp.waitForDatabase" -}}
{{- $database := include "flaskapp.database" .root | fromJson }}
{{- if not (has $database.host (list "localhost" "127.0.0.1" "::1")) }}
{{- $command := list "python" "-c" (include "flaskapp.waitForPort" .root) $database.host (toString $database.port) }}
{{- include "flaskapp.container" (merge (dict "name" "wait-for-database" "command" $command) .) }}
{{- end }}
{{- end }}

{{- define "flaskapp.waitForPort" -}}
import signal, socket, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
host, port, limit = sys.argv[1], int(sys.argv[2]), 300
for second in range(limit):
    try:
        socket.create_connection((host, port), timeout=3).close()
        sys.exit(0)
    except OSError as error:
        if second % 10 == 0:
            print(f"waiting for the database at {host}:{port}: {error}", flush=True)
        time.sleep(1)
sys.exit(f"the database at {host}:{port} did not answer in {limit} seconds")
{{- end }}

{{/* Repeats the command after it until that succeeds: the kubelet would, but after 10, 20, 40 seconds and more. */}}
{{- define "flaskapp.repeat" -}}
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
limit = time.monotonic() + 300
while code := subprocess.run(sys.argv[1:]).returncode:
    if time.monotonic() > limit:
        sys.exit(code)
    time.sleep(2)
{{- end }}
