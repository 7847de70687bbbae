#!/usr/bin/env bash
# Print the directory of a virtual environment that holds requirements-dev.lock, after making it where there is none
# (flaskapp_deploy/checkout.py). The arguments are the words of the command that it is for.
set -euo pipefail

python=${PYTHON:-python3}
case $(uname -s) in
  MINGW* | MSYS* | CYGWIN*)
    echo "error: Windows itself can't run this; run it in WSL2 (https://learn.microsoft.com/windows/wsl/install)" >&2
    exit 1
    ;;
esac
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then
  echo "error: Python 3.11 or newer is needed, and $python is older or absent" >&2
  echo "  install it (Amazon Linux: dnf install python3.13), or name it with PYTHON=python3.13" >&2
  exit 1
fi
here=$(cd "$(dirname "$0")" && pwd)
PYTHONPATH=$here exec "$python" -m flaskapp_deploy.checkout "$@"
