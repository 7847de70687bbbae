#!/usr/bin/env bash
# Asks the database for the pods of a release, in an image with psql. The first argument says what for:
#   port    wait until the server accepts connections
#   login   wait until it lets this role in
#   record  wait until the migration of this version has finished, in whichever pod
#   lock    nothing: files/lock.sh follows
# The record has a row for each migration of a release, in the order in which they began. An earlier version's row is there
# after a rollback, so it starts on the newer schema; a database put back to an older state lacks the later versions' rows.
set -euo pipefail
trap 'exit 143' TERM

secret=${LOGIN:-/run/secrets/database-login}
limit=300 # seconds

# Sets libpq's variables and `psql`. The password leaves a URL, for arguments are seen in lists of processes.
set_login() {
  local target=$PGDATABASE password
  if [[ -s $secret/username ]]; then PGUSER=$(<"$secret/username"); fi
  if [[ -s $secret/password ]]; then PGPASSWORD=$(<"$secret/password"); fi
  if [[ -s $secret/url && (-z $PGHOST || ! -s $secret/password) ]]; then
    target=$(<"$secret/url")
    target=postgresql://${target#*://} # SQLAlchemy's URLs name the driver, too
    if [[ $target =~ ^postgresql://([^:@/]*):([^@]*)@(.*)$ ]]; then
      target=postgresql://${BASH_REMATCH[1]}@${BASH_REMATCH[3]}
      password=${BASH_REMATCH[2]//\\/\\\\}
      printf -v PGPASSWORD %b "${password//%/\\x}"
    fi
  fi
  export PGUSER PGPASSWORD PGCONNECT_TIMEOUT=5
  psql=(psql --no-psqlrc --quiet --tuples-only --no-align --set=ON_ERROR_STOP=1 --set=release="${RELEASE:-}"
    --set=id="${MIGRATION:-}" --set=image="${IMAGE:-}" --dbname="$target")
}

port() {
  PGSSLMODE=prefer pg_isready --timeout=5
}

login() {
  set_login
  "${psql[@]}" --command="SELECT"
}

record() {
  local finished
  set_login
  finished=$("${psql[@]}" <<<"
    SELECT to_regclass('flaskapp.migrations') IS NOT NULL AS present \gset
    \if :present
      SELECT count(*) FROM flaskapp.migrations WHERE release = :'release' AND id = :'id' AND finished_at IS NOT NULL;
    \endif") || return
  [[ $finished == 1 ]] || { echo "the migration of $IMAGE has not finished"; return 1; }
}

wait_for() {
  local second reason
  for ((second = 0; second < limit; second++)); do
    if reason=$("$1" 2>&1); then return; fi
    ((second % 10)) || echo "waiting for the database: ${reason//$'\n'/ }"
    sleep 1
  done
  echo "error: the database was not ready within $limit s: ${reason//$'\n'/ }" >&2
  exit 1
}

[[ $1 == lock ]] || wait_for "$1"
