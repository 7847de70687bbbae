#!/usr/bin/env bash
# Write what is generated: the charts' schemas and READMEs, docs/openapi.json.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$(deploy/venv.sh)
tools=$(deploy/flaskapp-deploy programs chart)
"$venv/bin/python" charts/schema.py
"$tools/helm-docs" -c charts -s file -l warning
PYTHONPATH=src "$venv/bin/python" -m flaskapp openapi > docs/openapi.json
