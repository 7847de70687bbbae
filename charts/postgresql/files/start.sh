#!/usr/bin/env bash
# Makes the data directory at the first start, refuses one of another major version, then becomes the server.
set -euo pipefail
umask 0077
# shellcheck source=/dev/null
source /etc/postgresql/user.sh

volume=$(dirname "$PGDATA")
[[ $(postgres --version) =~ ([0-9]+) ]]
major=${BASH_REMATCH[1]}

refuse() {
  echo "postgresql: $1" >&2
  exit 1
}

if [[ -s $PGDATA/PG_VERSION ]]; then
  version=$(<"$PGDATA/PG_VERSION")
  [[ $version == "$major" ]] ||
    refuse "the data is PostgreSQL $version, the image is $major: set image.tag back to $version, then dump, reinstall and restore (docs/postgresql.md)"
  # A volume whose group was changed at mount is wider than the server accepts.
  chmod 0700 "$PGDATA"
else
  for other in "$volume"/PG_VERSION "$volume"/*/PG_VERSION "$volume"/*/*/PG_VERSION; do
    [[ $other == "$PGDATA".new/* || ! -e $other ]] ||
      refuse "$other is the data of another installation: move it by dump and restore (docs/postgresql.md), or use an empty volume"
  done
  # Made beside and renamed when whole, so that an interrupted start leaves nothing half-made in place.
  rm -rf "$PGDATA.new"
  # The builtin locale sorts alike on every image, whatever its C library.
  initdb --pgdata="$PGDATA.new" --username=postgres --auth-local=peer --auth-host=scram-sha-256 \
    --encoding=UTF8 --locale-provider=builtin --locale=C.UTF-8 --data-checksums --no-instructions
  sync
  mv "$PGDATA.new" "$PGDATA"
fi

# The superuser's peer is this container's user, whatever it is called.
echo "superuser $(id -un) postgres" >/tmp/pg_ident.conf
exec postgres -D "$PGDATA" -c config_file=/etc/postgresql/postgresql.conf -c ident_file=/tmp/pg_ident.conf
