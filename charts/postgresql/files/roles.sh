#!/usr/bin/env bash
# Keeps database, roles, grants and passwords as the values and the Secret say, also when the Secret changes.
# It speaks to the server as the superuser over the socket (peer), so it needs no password and a lost one is never fatal.
set -euo pipefail
trap 'exit 0' TERM INT

secrets=/run/secrets/postgresql
# Statements of this session stay out of the server's log.
export PGOPTIONS="-c log_statement=none -c log_min_error_statement=panic -c log_min_duration_statement=-1"

run_psql() {
  psql --no-psqlrc --quiet --username=postgres --dbname=postgres --set=ON_ERROR_STOP=1 "$@"
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

apply() {
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

applied=
for ((round = 0; ; round++)); do
  wanted=$({ cat "$secrets/${LOGIN_KEY:-$APP_PASSWORD_KEY}" "$secrets/$OWNER_PASSWORD_KEY" "$secrets/$APP_PASSWORD_KEY" "$secrets"-tls/* 2>/dev/null || :; } | sha256sum)
  if [[ $wanted == "$applied" ]]; then
    :
  elif ! pg_isready --quiet; then
    ((round % 5)) || echo "roles: waiting for the server to accept connections"
  elif apply; then
    applied=$wanted
    touch /tmp/applied
    echo "roles: database $DATABASE, roles $OWNER_ROLE and $APP_ROLE, the login $login and the passwords are in place"
  else
    echo "roles: not applied, trying again" >&2
  fi
  sleep 2 &
  wait $!
done
