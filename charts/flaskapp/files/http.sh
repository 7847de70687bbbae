#!/bin/sh
# Asks the application through its Service, for half a minute: a node may know a new Service seconds after the others.
set -eu

ask() {
  # By `timeout`, for with an option -T the wget of Debian's static busybox crashes.
  headers=$(timeout 10 wget -S -O /dev/null "$1" 2>&1) || :
  answer=$(echo "$headers" | sed -n 's/^ *\(HTTP\/.*\)/\1/p' | head -n 1)
  echo "${answer:-$headers}"
  case $answer in
    HTTP/*" "[23]??*) ;; # what a probe of Kubernetes takes for success
    *) return 1 ;;
  esac
}

second=0
until answer=$(ask "$1"); do
  [ "$second" -lt 30 ] || { echo "error: $1: $answer" >&2; exit 1; }
  second=$((second + 1))
  echo "$answer"
  sleep 1
done
echo "$1: $answer"
