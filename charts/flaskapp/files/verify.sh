#!/usr/bin/env bash
# Restores the newest dump into a server of its own and compares: a backup counts only when its rows came back.
set -euo pipefail
umask 0077

# shellcheck source=/dev/null
source "$SCRIPTS/user.sh"
PGUSER=$(id -un)
export PGUSER PGHOST=/tmp PGDATABASE=postgres
unset PGPORT
dump=$(ls "$BACKUPS"/*.unverified)
name=${dump%.unverified}

initdb --pgdata="$SCRATCH/data" --username="$PGUSER" --auth=peer --encoding=UTF8 --locale-provider=builtin --locale=C.UTF-8 \
  --no-sync --no-instructions >/dev/null
postgres -D "$SCRATCH/data" -c listen_addresses= -c unix_socket_directories=/tmp -c fsync=off -c max_wal_size=256MB \
  -c logging_collector=off -c log_min_messages=fatal &
server=$!
trap 'kill -INT $server; wait $server || true; rm -rf "$SCRATCH/data"' EXIT
for ((second = 0; second < 60; second++)); do
  if pg_isready --quiet; then break; fi
  sleep 1
done

psql --no-psqlrc --quiet --command="CREATE DATABASE restored TEMPLATE template0"
# All but its own superuser, which may have the name of one.
psql --no-psqlrc --quiet --file="$SCRATCH/roles.sql" 2>"$SCRATCH/refused" || :
pg_restore --dbname=restored --no-owner --no-privileges --exit-on-error "$dump"
psql --no-psqlrc --quiet --tuples-only --no-align --set=ON_ERROR_STOP=1 --dbname=restored --file="$SCRIPTS/tables.sql" >"$SCRATCH/tables"
if ! diff "$name.tables" "$SCRATCH/tables" >&2; then
  echo "backup: the restored rows are not the dumped ones; the dump does not count" >&2
  exit 1
fi
mv "$dump" "$name.dump"
echo "backup: $name.dump restored and compared, $(wc --lines <"$name.tables") tables alike"

# Only now may an older one go.
# shellcheck disable=SC2012 # the names are dates
ls -r "$BACKUPS"/*.dump | tail --lines=+$((KEEP + 1)) | while read -r old; do rm --verbose --force "$old" "${old%.dump}.tables"; done
