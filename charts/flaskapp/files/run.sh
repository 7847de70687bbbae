#!/bin/sh
# Runs a command of the application's image under a static busybox, so that the image needs no shell of its own.
#   migrate COMMAND…  once, when the container `migration-lock` lets it
#   repeat COMMAND…   until it succeeds: the kubelet would, but after 10, 20, 40 seconds and more
# Output and exit status are the command's, and it gets SIGTERM.
set -eu

tools=${TOOLS:-/run/flaskapp}
child=
ended=
trap 'ended=143; [ -z "$child" ] || kill "$child" 2>/dev/null || :' TERM INT

# Finds a program as the image would: a busybox may take one of its own applets for it.
find_program() {
  program=$1
  case $1 in */*) return ;; esac
  IFS=:
  for folder in $PATH; do
    program=$folder/$1
    [ -d "$program" ] || [ ! -x "$program" ] || { unset IFS; return; }
  done
  echo "error: $1 is not on the PATH of the image" >&2
  exit 127
}

call() {
  find_program "$1"
  shift
  "$program" "$@" &
  child=$!
  # A signal ends `wait` before the child has ended.
  while
    status=0
    wait "$child" || status=$?
    kill -0 "$child" 2>/dev/null
  do :; done
  child=
}

# Waits for a file of the container `migration-lock`, for a minute.
wait_for() {
  attempt=0
  until [ -e "$tools/$1" ]; do
    [ -z "$ended" ] || exit "$ended"
    [ "$attempt" -lt 300 ] || { echo "error: the container migration-lock left no file $1; its log says why" >&2; exit 1; }
    attempt=$((attempt + 1))
    "$tools/busybox" sleep 0.2
  done
}

migrate() {
  wait_for decision
  read -r decision image <"$tools/decision"
  case $decision in
    run) ;;
    skip)
      echo "migrate: nothing to do: this migration has finished before, and $image has migrated the schema further"
      exit 0
      ;;
    *)
      echo "$decision $image" >&2
      echo "  let this role create the schema flaskapp, or write to it; or set migrations.record to false" >&2
      "$tools/busybox" rm "$tools/decision"
      exit 1
      ;;
  esac
  call "$@"
  [ "$status" = 0 ] || exit "$status"
  : >"$tools/succeeded"
  wait_for recorded
}

repeat() {
  limit=$(($("$tools/busybox" date +%s) + 300))
  while
    call "$@"
    [ "$status" != 0 ]
  do
    [ -z "$ended" ] || exit "$ended"
    [ "$("$tools/busybox" date +%s)" -lt "$limit" ] || exit "$status"
    call "$tools/busybox" sleep 2
    [ -z "$ended" ] || exit "$ended"
  done
}

"$@"
