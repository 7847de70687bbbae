#!/usr/bin/env bash
# Sourced by scripts that start a server. An arbitrary user (OpenShift's) is in no account database, but initdb and the
# server's peer authentication ask for its name: the official image has a library that answers. The same file is in both charts.
if ! getent passwd "$UID" >/dev/null; then
  for library in {/usr,}/lib{/*,}/libnss_wrapper.so; do
    [[ ! -e $library ]] || break
  done
  [[ -e $library ]] || {
    echo "user $UID has no name in this image, nor has it libnss_wrapper.so: use the official image, or a user of this one" >&2
    exit 1
  }
  echo "postgres:x:$UID:$(id -g)::/tmp:/bin/bash" >/tmp/passwd
  echo "postgres:x:$(id -g):" >/tmp/group
  export LD_PRELOAD=$library NSS_WRAPPER_PASSWD=/tmp/passwd NSS_WRAPPER_GROUP=/tmp/group
fi
