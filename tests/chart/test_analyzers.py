"""kube-score and checkov report nothing for any set of values, except what ignored.yaml lists with a reason."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.analyzers import Finding, checkov, kube_score
from tests.chart.render import RELEASE_VALUES, merged, render

IGNORED: dict[str, dict[str, dict[str, str]]] = yaml.safe_load((Path(__file__).parent / "ignored.yaml").read_text())


def rule(tool: str, finding: Finding) -> str:
    """Return the key in ignored.yaml that covers a finding, or an empty string."""
    check, name, text = finding
    for key in (check, f"{check}: {text}"):
        entry = IGNORED[tool].get(key)
        if entry and re.search(entry.get("only", ""), name):
            return key
    return ""


def split(tool: str, findings: list[Finding]) -> tuple[set[str], set[Finding]]:
    """Return the keys that cover a finding, and the findings that none covers."""
    by_rule = [(rule(tool, finding), finding) for finding in findings]
    return {key for key, _ in by_rule if key}, {finding for key, finding in by_rule if not key}


def objects(values: dict[str, Any], chart: str = "flaskapp") -> list[dict[str, Any]]:
    items = render(chart, values)
    for item in items:
        item["metadata"]["namespace"] = "shop"
    return items


# Every set of values, and one with a backup.
VALUES = RELEASE_VALUES | {"backup": merged(RELEASE_VALUES["bundled"], {"backup": {"enabled": True}})}


def test_every_reason_is_given() -> None:
    for entries in IGNORED.values():
        assert all(len(entry["why"]) > 20 for entry in entries.values())


def test_kube_score() -> None:
    findings = [finding for values in VALUES.values() for finding in kube_score(yaml.safe_dump_all(objects(values)))]
    needed, open_ones = split("kube-score", findings)
    assert open_ones == set()
    assert needed == set(IGNORED["kube-score"])


def broken(key: str, value: Any) -> list[dict[str, Any]]:
    """Return the default objects with one setting of the first container changed."""
    items = objects(RELEASE_VALUES["default"])
    deployment = next(item for item in items if item["kind"] == "Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["securityContext"][key] = value
    return items


@pytest.mark.parametrize(("key", "value"), [("readOnlyRootFilesystem", False), ("privileged", True), ("runAsUser", 0)])
def test_kube_score_sees_a_mistake(key: str, value: Any) -> None:
    assert split("kube-score", kube_score(yaml.safe_dump_all(broken(key, value))))[1]


def test_checkov(tmp_path: Path) -> None:
    """Check all values and three mistakes in one run, as checkov starts slowly."""
    mistakes = {"readOnlyRootFilesystem": False, "privileged": True, "allowPrivilegeEscalation": True}
    for name, values in VALUES.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump_all(objects(values)))
    for key, value in mistakes.items():
        (tmp_path / f"mistake-{key}.yaml").write_text(yaml.safe_dump_all(broken(key, value)))
    findings = checkov(tmp_path)
    needed, open_ones = split("checkov", [finding for finding in findings if "of mistake-" not in finding[1]])
    assert open_ones == set()
    assert needed == set(IGNORED["checkov"])
    _, seen = split("checkov", [finding for finding in findings if "of mistake-" in finding[1]])
    assert {name.partition(" of mistake-")[2] for _, name, _ in seen} == set(mistakes)
