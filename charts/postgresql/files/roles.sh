#!/usr/bin/env bash
# Keeps database, roles, grants, passwords and SQL as the values and the Secret say, also when the Secret or the SQL changes.
# It speaks to the server as the superuser over the socket (peer), so it needs no password and a lost one is never fatal.
set -euo pipefail
trap 'exit 0' TERM INT

secrets=/run/secrets/postgresql
init=/etc/postgresql-init
# Statements of this session stay out of the server's log.
export PGOPTIONS="-c log_statement=none -c log_min_error_statement=panic -c log_min_duration_statement=-1"

run_psql() {
  psql --no-psqlrc --quiet --dbname=postgres --set=ON_ERROR_STOP=1 "$@"
}

# psql itself makes the SCRAM verifier, so that no password leaves this container.
set_password() {
  local role=$1 password
  password=$(<"$secrets/$2") || return 1
  [[ -n $password ]] || { echo "roles: key $2 of the Secret is empty" >&2; return 1; }
  printf '%s\n%s\n' "$password" "$password" | run_psql --command="\\password $role" >/dev/null 2>/tmp/password.err ||
    { cat /tmp/password.err >&2; return 1; }
}

# The login that the Secret names: the application's role, or the second one, which acts as it.
read_login() {
  login=$APP_ROLE
  [[ -z $LOGIN_KEY ]] || login=$(<"$secrets/$LOGIN_KEY") || return 1
  [[ $login == "$APP_ROLE" || $login == "${APP_ROLE}_2" ]] ||
    { echo "roles: the login $login in the Secret is neither $APP_ROLE nor ${APP_ROLE}_2" >&2; return 1; }
}

apply_roles() {
  local variables=(--set=database="$DATABASE" --set=app="$APP_ROLE" --set=owner="$OWNER_ROLE"
    --set=separate_owner="$SEPARATE_OWNER" --set=overlap="$OVERLAP_SECONDS seconds")
  read_login &&
    run_psql "${variables[@]}" --set=login="$login" --file=/etc/postgresql/roles.sql >/dev/null &&
    set_password "$OWNER_ROLE" "$OWNER_PASSWORD_KEY" &&
    set_password "$login" "$APP_PASSWORD_KEY" &&
    # Only now, when the new one works, does the time of the one before begin to run.
    run_psql "${variables[@]}" --set=login="$login" --file=/etc/postgresql/overlap.sql >/dev/null &&
    # A renewed certificate is read at a reload.
    run_psql --command="SELECT pg_reload_conf()" >/dev/null
}

# One transaction, which also leaves the checksum in the database: what failed is repeated whole, what succeeded is not.
apply_sql() {
  local files=("$init"/*) checksum recorded file as_superuser=() as_owner=()
  [[ -e ${files[0]} ]] || return 0
  checksum=$(sha256sum "${files[@]}" | sha256sum)
  recorded=$(run_psql --dbname="$DATABASE" -At --command="SELECT current_setting('init_sql.checksum', true)") || return 1
  [[ $recorded != "${checksum%% *}" ]] || return 0
  # A database that has had its SQL once is served, whatever a changed file does.
  [[ -z $recorded ]] || touch /tmp/applied
  for file in "${files[@]}"; do
    if [[ $file == "$init"/owner.* ]]; then as_owner+=(--file="$file"); else as_superuser+=(--file="$file"); fi
  done
  run_psql --dbname="$DATABASE" --single-transaction "${as_superuser[@]}" \
    --command="SET SESSION AUTHORIZATION \"$OWNER_ROLE\"" "${as_owner[@]}" --command="RESET SESSION AUTHORIZATION" \
    --command="ALTER DATABASE \"$DATABASE\" SET init_sql.checksum = '${checksum%% *}'" >/dev/null
}

applied=
for ((round = 0; ; round++)); do
  wanted=$({ cat "$secrets/${LOGIN_KEY:-$APP_PASSWORD_KEY}" "$secrets/$OWNER_PASSWORD_KEY" "$secrets/$APP_PASSWORD_KEY" "$secrets"-tls/* "$init"/* 2>/dev/null || :; } | sha256sum)
  pause=2
  if [[ $wanted == "$applied" ]]; then
    :
  elif ! pg_isready --quiet; then
    ((round % 5)) || echo "roles: waiting for the server to accept connections"
  elif apply_roles && apply_sql; then
    applied=$wanted
    touch /tmp/applied
    echo "roles: database $DATABASE, roles $OWNER_ROLE and $APP_ROLE, the login $login and the passwords are in place"
  else
    pause=10
    echo "roles: not applied, trying again" >&2
  fi
  sleep "$pause" &
  wait $!
done
