#!/usr/bin/env bash
# Follows database.sh, beside a migration: holds the lock, says whether to run, and records that the migration has finished.
# shellcheck disable=SC2154 # database.sh sets psql
state=${STATE:-/run/flaskapp} # shared with the container `migrate`

# A transaction holds the lock, which a pooler of connections may not take apart. It sees no rows, so that an index can be
# built CONCURRENTLY beside it; whoever waits asks again and again, for a query that waits would hold up such an index.
take_lock() {
  local second answer
  coproc LOCK { exec "${psql[@]}"; }
  # shellcheck disable=SC2153 # coproc sets it
  lock_pid=$LOCK_PID
  exec {lock}>&"${LOCK[1]}" {answers}<&"${LOCK[0]}"
  for ((second = 0; ; second++)); do
    # The server notices within half a minute that this node is gone, and no limit on idle transactions ends this one.
    echo "BEGIN;
      SELECT set_config(name, value, true) FROM (VALUES ('tcp_keepalives_idle', '10'), ('tcp_keepalives_interval', '5'),
        ('tcp_keepalives_count', '3'), ('idle_in_transaction_session_timeout', '0'), ('transaction_timeout', '0'))
        AS setting (name, value) JOIN pg_settings USING (name) \g /dev/null
      SELECT pg_try_advisory_xact_lock(hashtext('flaskapp.migrations'));" >&"$lock"
    read -r -t 30 answer <&"$answers" || { echo "error: the database does not answer" >&2; exit 1; }
    if [[ $answer == t ]]; then return; fi
    ((second % 10)) || echo "waiting for the lock: another migration of this database is at work"
    echo "ROLLBACK;" >&"$lock"
    sleep 1
  done
}

# Runs SQL on the record, which is made where it is missing.
on_record() {
  "${psql[@]}" <<<"
    SELECT to_regclass('flaskapp.migrations') IS NULL AS absent, to_regnamespace('flaskapp') IS NULL AS schema_absent \gset
    \if :absent
      BEGIN;
      \if :schema_absent
        CREATE SCHEMA flaskapp;
      \endif
      GRANT USAGE ON SCHEMA flaskapp TO PUBLIC;
      CREATE TABLE flaskapp.migrations (
        number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        release text NOT NULL,
        id text NOT NULL,
        image text NOT NULL,
        begun_at timestamptz NOT NULL DEFAULT now(),
        finished_at timestamptz,
        UNIQUE (release, id)
      );
      GRANT SELECT ON flaskapp.migrations TO PUBLIC;
      COMMIT;
    \endif
    $1"
}

# Prints `run`; or `skip` and an image, where a later migration has begun since this one finished.
decide() {
  on_record "
    INSERT INTO flaskapp.migrations (release, id, image) VALUES (:'release', :'id', :'image') ON CONFLICT DO NOTHING;
    SELECT coalesce((
      SELECT 'skip ' || later.image
      FROM flaskapp.migrations AS own JOIN flaskapp.migrations AS later USING (release)
      WHERE release = :'release' AND own.id = :'id' AND own.finished_at IS NOT NULL AND later.number > own.number
      ORDER BY later.number DESC LIMIT 1
    ), 'run');"
}

# Leaves the decision for the container `migrate`, which takes an error away, to be told of the next attempt.
announce() {
  local decision=
  if [[ -e $state/decision ]]; then decision=$(<"$state/decision"); fi
  # Where this container was restarted, the command may be running.
  while [[ $decision != run && $decision != skip* ]]; do
    if decision=$(decide 2>&1); then
      decision=${decision##*$'\n'}
    else
      decision="error: migrations can't be recorded: ${decision//$'\n'/ }"
    fi
    echo "$decision" >"$state/decision.new"
    mv "$state/decision.new" "$state/decision"
    echo "$decision"
    while [[ $decision == error* && -e $state/decision ]]; do sleep 0.5; done
  done
}

lock() {
  trap 'exit 0' TERM
  set_login
  take_lock
  announce
  if [[ $(<"$state/decision") == run ]]; then
    until [[ -e $state/succeeded ]]; do
      kill -0 "$lock_pid" || { echo "error: the session with the lock has ended" >&2; exit 1; }
      sleep 0.5
    done
    on_record "
      INSERT INTO flaskapp.migrations (release, id, image, finished_at) VALUES (:'release', :'id', :'image', now())
      ON CONFLICT (release, id) DO UPDATE SET finished_at = now();"
    touch "$state/recorded"
    echo "recorded"
  fi
  echo "COMMIT; \q" >&"$lock" || :
  sleep infinity &
  wait $!
}

lock
