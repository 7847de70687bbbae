#!/usr/bin/env bash
# Restores the newest backup of a release into a new release with a database of its own, and compares every table.
#   charts/restore.sh RELEASE NEW        in the namespace of the current context; needs the right to exec
set -euo pipefail

if (($# != 2)); then
  echo "usage: charts/restore.sh RELEASE NEW" >&2
  exit 2
fi
source=$1 target=$2 began=$SECONDS
charts=$(dirname "${BASH_SOURCE[0]}")
reader=$target-restore
database=$target-postgresql-0

claim=$(kubectl get persistentvolumeclaims --output=name \
  --selector "app.kubernetes.io/instance=$source,app.kubernetes.io/component=backup" | head --lines=1)
[[ -n $claim ]] || claim=$(kubectl get persistentvolumeclaims --output=name | grep -- "/$source.*-backup$" | head --lines=1) ||
  { echo "restore: the release $source has no volume with backups here" >&2; exit 1; }
image=$(kubectl get statefulset "$source-postgresql" --output=jsonpath='{.spec.template.spec.containers[0].image}')

# The same values, but nobody who serves or migrates yet.
helm get values "$source" --output=yaml |
  helm install "$target" "$charts/flaskapp" --values=- --wait --timeout=5m \
    --set replicas=0,autoscaling.enabled=false,migrations.mode=none,backup.enabled=false,postgresql.primary.persistence.keep=true >/dev/null

trap 'kubectl delete pod "$reader" --ignore-not-found --wait=false >/dev/null' EXIT
kubectl create --filename=- >/dev/null <<POD
apiVersion: v1
kind: Pod
metadata: {name: $reader}
spec:
  automountServiceAccountToken: false
  securityContext: {runAsNonRoot: true, runAsUser: 999, runAsGroup: 999, fsGroup: 999, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: reader
      image: $image
      command: [sleep, "3600"]
      securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
      volumeMounts: [{name: backups, mountPath: /var/backups, readOnly: true}]
  volumes:
    - {name: backups, persistentVolumeClaim: {claimName: ${claim#*/}}}
POD
kubectl wait pod "$reader" --for=condition=Ready --timeout=3m >/dev/null

dump=$(kubectl exec "$reader" -- bash -c 'ls /var/backups/*.dump | tail --lines=1')
name=$(kubectl exec "$database" --container=roles -- printenv DATABASE)
echo "restore: $dump of $source into $target"
kubectl exec "$reader" -- cat "$dump" |
  kubectl exec --stdin "$database" --container=postgresql -- \
    pg_restore --username=postgres --dbname="$name" --clean --if-exists --exit-on-error
kubectl exec "$reader" -- test -e "${dump%.dump}.tables" ||
  { echo "restore: done, but not compared: this backup has no sums beside it" >&2; exit 1; }
diff <(kubectl exec "$reader" -- cat "${dump%.dump}.tables") \
  <(kubectl exec --stdin "$database" --container=postgresql -- \
    psql --no-psqlrc --quiet --tuples-only --no-align --username=postgres --dbname="$name" <"$charts/flaskapp/files/tables.sql") ||
  { echo "restore: the rows are not the ones of the backup" >&2; exit 1; }
echo "restore: every table is as it was dumped, after $((SECONDS - began)) s; to serve from it, helm upgrade $target with the values of $source"
