#!/usr/bin/env bash
# Dumps the database, and beside it what a restore must give: each table's rows and a sum over them, at the same instant.
set -euo pipefail
umask 0077

if [[ -n ${PGPASSWORD_FILE:-} ]]; then PGPASSWORD=$(<"$PGPASSWORD_FILE") && export PGPASSWORD; fi
if [[ -n ${PGUSER_FILE:-} ]]; then PGUSER=$(<"$PGUSER_FILE") && export PGUSER; fi

query() {
  psql --no-psqlrc --quiet --tuples-only --no-align --set=ON_ERROR_STOP=1 "$@"
}

for ((second = 0; ; second += 5)); do
  if query --command="SELECT" >/dev/null 2>/tmp/refused; then break; fi
  ((second < 300)) || { echo "backup: the database at $PGHOST did not let us in: $(</tmp/refused)" >&2; exit 1; }
  ((second % 30)) || echo "backup: waiting for the database: $(</tmp/refused)"
  sleep 5
done

name=$BACKUPS/$(date --utc +%Y-%m-%dT%H-%M-%SZ)
rm -f "$BACKUPS"/*.unverified
for tables in "$BACKUPS"/*.tables; do # those of a dump that did not count
  [[ -e ${tables%.tables}.dump ]] || rm -f "$tables"
done

# Rows that row-level security hides would be missing from a restore, so another role sees them: the bundled server has one.
hidden=$(query --command="SELECT string_agg(oid::regclass::text, ', ') FROM pg_class WHERE relkind IN ('r', 'p') AND row_security_active(oid)")
role=
if [[ -n $hidden ]]; then
  role=$(query --command="SELECT rolname FROM pg_roles WHERE rolbypassrls AND pg_has_role(oid, 'MEMBER') ORDER BY rolname LIMIT 1")
  [[ -n $role ]] || { echo "backup: row-level security hides rows of $hidden from $PGUSER: make it a member of a role with BYPASSRLS (docs/backup.md)" >&2; exit 1; }
fi

# One session holds the instant open for the dump and for the sums.
coproc SESSION { query; }
# shellcheck disable=SC2153 # coproc sets it
session_pid=$SESSION_PID
ask=${SESSION[1]} answer=${SESSION[0]}
[[ -z $role ]] || echo "SET ROLE \"${role//\"/\"\"}\";" >&"$ask"
echo "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT pg_export_snapshot();" >&"$ask"
read -r -t 60 snapshot <&"$answer" || { echo "backup: the database at $PGHOST did not answer" >&2; exit 1; }
pg_dump --format=custom ${role:+--role="$role"} --snapshot="$snapshot" --file="$name.unverified"
# A policy or a user mapping names roles, which the restore of verify.sh must find.
printf '\\o %s\n%s\n' "$SCRATCH/roles.sql" "SELECT format('CREATE ROLE %I;', rolname) FROM pg_roles WHERE rolname !~ '^pg_';" >&"$ask"
printf '\\o %s\n\\i %s\n\\q\n' "$name.tables" "$SCRIPTS/tables.sql" >&"$ask"
wait "$session_pid"
echo "backup: dumped $(stat --format=%s "$name.unverified") bytes, $(wc --lines <"$name.tables") tables"
