{{/* The pod of the migration. First it waits for the database, so that no attempt is spent on a server that is still starting. */}}
{{- define "flaskapp.migrationPod" -}}
{{- $pod := dict "root" . "account" "owner" "own" .Values.migrations.pod "component" "migration" }}
{{- $init := list }}
{{- with include "flaskapp.waitForDatabase" $pod }}
{{- $init = list (fromYaml .) }}
{{- end }}
{{- include "flaskapp.podTemplate" (merge (dict
  "container" (include "flaskapp.container" (merge (dict "name" "migrate" "command" .Values.migrations.command) $pod))
  "init" (toYaml $init) "accounts" (list "owner") "ends" "true"
  "annotations" (merge (include "flaskapp.checksums" . | fromYaml) (dict "flaskapp/migration-retry" (toString .Values.migrations.retry)))) $pod) }}
{{- end }}

{{/* What pods that serve wait for before they start, as a YAML list of init containers. Arguments: root, account, own, component. */}}
{{- define "flaskapp.waitContainers" -}}
{{- $mode := include "flaskapp.migrationMode" .root }}
{{- $list := list }}
{{- $wait := and (has $mode (list "job" "hook")) .root.Values.migrations.waitCommand }}
{{- if and (include "flaskapp.hasDatabase" .root) (not $wait) .root.Values.database.wait }}
{{- with include "flaskapp.waitForDatabase" . }}
{{- $list = append $list (fromYaml .) }}
{{- end }}
{{- end }}
{{- if eq $mode "initContainer" }}
{{- $list = append $list (include "flaskapp.container" (merge (dict "account" "owner" "name" "migrate" "command" .root.Values.migrations.command) .) | fromYaml) }}
{{- else if $wait }}
{{- $repeat := concat (list "python" "-c" (include "flaskapp.repeat" .)) .root.Values.migrations.waitCommand }}
{{- $list = append $list (include "flaskapp.container" (merge (dict "name" "wait-for-schema" "command" $repeat) .) | fromYaml) }}
{{- end }}
{{- toYaml $list }}
{{- end }}

{{- define "flaskapp.waitVolumes" -}}
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
