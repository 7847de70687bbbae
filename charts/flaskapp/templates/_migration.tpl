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
A container that waits for the database's port and, at the bundled server, until its credentials are let in: in a
rotation this pod's kubelet may be quicker than the server's. It logs in with the application's own driver; Python is in
every image that serves Flask. Empty where a proxy beside the application listens: that starts later.
Arguments: root, account.
*/}}
{{- define "flaskapp.waitForDatabase" -}}
{{- $database := include "flaskapp.database" .root | fromJson }}
{{- if not (has $database.host (list "localhost" "127.0.0.1" "::1")) }}
{{- $command := list "python" "-c" (include "flaskapp.waitForPort" .root) $database.host (toString $database.port) }}
{{- $env := list }}
{{- if .root.Values.postgresql.enabled }}
{{- $env = include "flaskapp.loginEnv" . | fromJsonArray }}
{{- end }}
{{- include "flaskapp.container" (merge (dict "name" "wait-for-database" "command" $command "moreEnv" $env) .) }}
{{- end }}
{{- end }}

{{/* What it logs in with, as a JSON list; where credentials are files, they are read from there. */}}
{{- define "flaskapp.loginEnv" -}}
{{- $database := include "flaskapp.database" .root | fromJson }}
{{- $account := get $database .account }}
{{- $user := dict "name" "LOGIN_USER" "value" $account.username }}
{{- $list := list (dict "name" "LOGIN_DBNAME" "value" $database.name) (dict "name" "LOGIN_SSLMODE" "value" .root.Values.database.sslmode) }}
{{- if .root.Values.database.caSecret }}
{{- $list = append $list (dict "name" "LOGIN_SSLROOTCERT" "value" "/run/secrets/database-ca/ca.crt") }}
{{- end }}
{{- if not (include "flaskapp.databaseFiles" .) }}
{{- with $account.usernameKey }}
{{- $user = dict "name" "LOGIN_USER" "valueFrom" (dict "secretKeyRef" (dict "name" $account.secret "key" .)) }}
{{- end }}
{{- $list = append $list (dict "name" "LOGIN_PASSWORD" "valueFrom" (dict "secretKeyRef" (dict "name" $account.secret "key" $account.passwordKey))) }}
{{- end }}
{{- append $list $user | toJson }}
{{- end }}

{{- define "flaskapp.waitForPort" -}}
import importlib, os, signal, socket, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
host, port, limit = sys.argv[1], int(sys.argv[2]), 300
driver = None
for name in ("psycopg", "psycopg2") if "LOGIN_USER" in os.environ else ():
    try:
        driver = importlib.import_module(name)
        break
    except ImportError:
        continue
def ask():
    socket.create_connection((host, port), timeout=3).close()
    if driver:
        login = {name[6:].lower(): value for name, value in os.environ.items() if name.startswith("LOGIN_")}
        for name, file in (("user", "username"), ("password", "password")):
            path = "/run/secrets/database/" + file
            if os.path.exists(path):
                with open(path, encoding="utf-8") as content:
                    login[name] = content.read().rstrip("\r\n")
        driver.connect(host=host, port=port, connect_timeout=3, **login).close()
for second in range(limit):
    try:
        ask()
        sys.exit(0)
    except Exception as error:
        if second % 10 == 0:
            print(f"waiting for the database at {host}:{port}: {error}", flush=True)
        time.sleep(1)
sys.exit(f"the database at {host}:{port} did not let us in within {limit} seconds")
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
