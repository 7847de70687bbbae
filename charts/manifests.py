"""Render the chart with the ledger's values into plain manifests, for clusters that are managed with kubectl alone.

    make manifests                      # this, into build/manifests
    kubectl apply -f build/manifests    # once db-secret.yml has passwords; the API server refuses it before

Arguments after the folder are passed to `helm template`. There is one file for each thing that is changed separately.
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
# The placeholder is not base64, so the API server refuses it and it can't become a password.
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
    """Remove the labels that say that helm manages the object."""
    for label in ("app.kubernetes.io/managed-by", "helm.sh/chart"):
        item["metadata"].get("labels", {}).pop(label, None)
    return item


def manifests(arguments: list[str]) -> dict[str, str]:
    """Return the content of each file, by name."""
    version = yaml.safe_load((ROOT / "charts/flaskapp/Chart.yaml").read_text())["appVersion"]
    command = ["helm", "template", "flaskapp", "charts/flaskapp", "--no-hooks", "--values", "environments/ledger.yaml"]
    command += ["--set", "image.repository=localhost/flaskapp", "--set-string", f"image.tag={version}", *arguments]
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
    """Write the files into a folder, and print their paths."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for name, text in manifests(list(arguments)).items():
        (target / name).write_text(text)
        print(target / name)


if __name__ == "__main__":
    main(*(sys.argv[1:] or ["build/manifests"]))
