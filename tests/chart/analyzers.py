"""kube-score and checkov over rendered objects, and over infra/. A finding is (check, object, text)."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from hashlib import sha256
from pathlib import Path

from flaskapp_deploy import programs, shell
from tests.chart.render import ROOT

Finding = tuple[str, str, str]
CHECKOV_LOCK = ROOT / "tests/checkov/requirements.lock"


def kube_score(text: str) -> list[Finding]:
    command = [str(programs.binaries("policy") / "kube-score"), "score", "-", "--output-format=json"]
    result = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)
    findings = []
    for item in json.loads(result.stdout):
        name = f"{item['type_meta']['kind']}/{item['object_meta']['name']}"
        for check in item["checks"] or []:
            # The best grade is 10.
            if not check["skipped"] and check["grade"] < 10:
                comments = check["comments"] or [{"path": "", "summary": ""}]
                findings += [(check["check"]["id"], name, one["summary"]) for one in comments]
    return findings


@cache
def checkov_program() -> Path:
    """Install checkov in an environment of its own, once for each lock: it pins versions too old for the others."""
    key = sha256(CHECKOV_LOCK.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = shell.cache() / f"checkov-{key}"
    with shell.locked(folder.with_suffix(".lock"), "waiting for another installation of checkov"):
        if not (folder / "complete").exists():
            shell.say("installing checkov from tests/checkov/requirements.lock: about a minute the first time")
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
            pip = [str(folder / "bin/pip"), "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
            subprocess.run([*pip, "--require-hashes", "--requirement", str(CHECKOV_LOCK)], check=True)
            (folder / "complete").touch()
    return folder / "bin/checkov"


def failed_checks(folder: Path, framework: str) -> list[dict[str, str]]:
    """Return checkov's failed checks of all files in a folder, in one run."""
    command = [str(checkov_program()), "--directory", str(folder), "--framework", framework, "--output", "json"]
    options = ["--compact", "--quiet", "--skip-download"]
    result = subprocess.run([*command, *options], capture_output=True, text=True, timeout=300)
    assert result.returncode in (0, 1), result.stderr
    report = json.loads(result.stdout)
    assert report["summary"]["parsing_errors"] == 0
    failures: list[dict[str, str]] = report["results"]["failed_checks"]
    return failures


def checkov(folder: Path) -> list[Finding]:
    """Return findings in Kubernetes objects; an object's name starts with its kind and ends with its file."""
    findings = []
    for failed in failed_checks(folder, "kubernetes"):
        kind, _, name = failed["resource"].split(".", 2)
        findings.append(
            (failed["check_id"], f"{kind}/{name} of {Path(failed['file_path']).stem}", failed["check_name"])
        )
    return findings
