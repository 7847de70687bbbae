"""Write plain manifests for people with kubectl alone, out of the chart.

    python charts/manifests.py build/manifests [--set image.repository=… …]

    kubectl apply -f build/manifests    # after db-secret.yml has passwords; the API server refuses it before

What is after the folder goes to `helm template`. One file for each thing that people change by itself.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
FILES = {
    "db-configmap.yml": lambda kind, database: database and kind == "ConfigMap",
    "kubernetes-postgresql.yml": lambda kind, database: database,
    "kubernetes-flaskapp-api.yml": lambda kind, database: not database,
}
# A placeholder is no base64, so the API server refuses it and it never becomes a password.
DB_SECRET_YML = """\
# The database's passwords. Replace both, each by the output of:
#   openssl rand -hex 24 | tr -d '\\n' | base64
apiVersion: v1
kind: Secret
metadata:
  name: flaskapp-postgresql
type: Opaque
data:
  password: <replace-me>
  owner-password: <replace-me>
"""  # noqa: S105


def plain(item: dict[str, Any]) -> dict[str, Any]:
    """Without what says that helm looks after it."""
    for label in ("app.kubernetes.io/managed-by", "helm.sh/chart"):
        item["metadata"].get("labels", {}).pop(label, None)
    return item


def manifests(arguments: list[str]) -> dict[str, str]:
    command = ["helm", "template", "flaskapp", "charts/flaskapp", "--no-hooks", *arguments]
    command += ["--set", "postgresql.auth.existingSecret=flaskapp-postgresql"]
    text = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    objects = [plain(item) for item in yaml.safe_load_all(text) if item]
    written = {"db-secret.yml": DB_SECRET_YML}
    for name, belongs in FILES.items():
        inside = [
            i for i in objects if belongs(i["kind"], i["metadata"]["labels"]["app.kubernetes.io/name"] == "postgresql")
        ]
        objects = [item for item in objects if item not in inside]
        written[name] = (
            f"# Made by charts/manifests.py; change the chart's values instead.\n{yaml.safe_dump_all(inside)}"
        )
    return written


def main(folder: str, *arguments: str) -> None:
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for name, text in manifests(list(arguments)).items():
        (target / name).write_text(text)
        print(target / name)


if __name__ == "__main__":
    main(*(sys.argv[1:] or ["build/manifests"]))
