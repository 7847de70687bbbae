#!/usr/bin/env bash
# Print the directory of a virtual environment that holds requirements-dev.lock, after making it where there is none.
# It lies in the user's cache, keyed by the lock and the Python; pip checks every hash. The lock is complete, and without
# --no-deps pip would look for newer versions of what has extras.
set -euo pipefail

cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then
  echo "deploy/venv.sh: Python 3.11 or newer is needed, and $python is older or absent" >&2
  echo "  install it (Amazon Linux: dnf install python3.13), or name it with PYTHON=python3.13" >&2
  exit 1
fi
cache=${XDG_CACHE_HOME:-$HOME/.cache}/flaskapp
key=$({ "$python" -VV; "$python" -c 'import sys; print(sys.prefix)'; cat requirements-dev.lock; } | sha256sum | cut -c1-12)
venv=$cache/venv-$key

if [ ! -e "$venv/complete" ]; then
  mkdir -p "$cache"
  exec 9> "$venv.lock"
  flock 9
fi
if [ ! -e "$venv/complete" ]; then
  echo "installing Python packages from requirements-dev.lock (about a minute the first time)" >&2
  rm -rf "$venv"
  # Debian keeps what makes virtual environments in a package of its own.
  if ! "$python" -c 'import ensurepip' 2> /dev/null && [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    echo "installing Debian's package python3-venv, removing none" >&2
    { apt-get update && apt-get install -y --no-install-recommends --no-remove python3-venv; } > "$venv.log" 2>&1 || true
  fi
  if ! "$python" -m venv "$venv" > "$venv.log" 2>&1; then
    echo "deploy/venv.sh: $python can't make virtual environments: it has no ensurepip" >&2
    echo "  Debian: apt-get install python3-venv; Amazon Linux: dnf install python3.13 and PYTHON=python3.13" >&2
    exit 1
  fi
  if ! "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-dev.lock > "$venv.log" 2>&1; then
    tail -5 "$venv.log" >&2
    exit 1
  fi
  touch "$venv/complete"
fi
echo "$venv"
