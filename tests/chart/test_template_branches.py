"""Every branch of every template is covered by some test's values.

Each branch of a copy of the charts is marked with `fail`, which `helm lint` only logs; the logs of one lint for each
set of values that the unit suites and the repository use say which branches were taken. `pytest -s` prints the count.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from tests.chart.render import CHARTS, RELEASE_VALUES, merged, values_of

OPENS = re.compile(r"\{\{-? *(?:if|with|range|else)\b(?:(?!\}\}).)*\}\}", re.DOTALL)
# Taken only where `lookup` answers; the unit suites take them with a cluster of their own.
WITH_CLUSTER = (
    '.manager "helm"',
    'lookup "',
    "volumeClaimTemplates",
    "requests.storage",
    "handedOverReplicas",
    "$kept",
    "and $ours",
    "clusterAnswers",
    "$live",
    "$keep",
    "$clientSide",
    "managedFields",
)


def mark(folder: Path) -> dict[str, str]:
    """Insert a mark after each branch's start; return each mark's file and branch."""
    marks: dict[str, str] = {}

    def marked(match: re.Match[str], path: Path) -> str:
        name = f"BRANCH-{len(marks)}."
        marks[name] = f"{path.relative_to(folder)}: {match[0]}"
        return (
            f'{match[0]}{{{{- fail "{name}" -}}}}' if match[0].endswith("-}}") else f'{match[0]}{{{{ fail "{name}" }}}}'
        )

    for path in sorted(folder.glob("*/templates/**/*")):
        if path.is_file():
            path.write_text(OPENS.sub(partial(marked, path=path), path.read_text()))
    return marks


def set_path(values: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = re.split(r"(?<!\\)\.", dotted)
    for key in parents:
        values = values.setdefault(key, {})
    values[last] = value


def cases(chart: str) -> set[tuple[str, str, str]]:
    """Return chart, release and values of each case in a chart's unit suites."""
    result = set()
    for path in sorted((CHARTS / chart / "tests").glob("*_test.yaml")):
        suite = yaml.safe_load(path.read_text())
        for case in suite["tests"]:
            values = merged(
                *(values_of(path.parent / name) for name in [*suite.get("values", []), *case.get("values", [])])
            )
            for key, value in {**suite.get("set", {}), **case.get("set", {})}.items():
                layer: dict[str, Any] = {}
                set_path(layer, key, value)
                values = merged(values, layer)
            result.add((chart, case.get("release", {}).get("name", "web"), json.dumps(values, sort_keys=True)))
    return result


def run(folder: Path, *command: str, values: str) -> set[str]:
    """Run helm and return the marks that it reached."""
    result = subprocess.run(command, cwd=folder, input=values, check=False, capture_output=True, text=True)
    return set(re.findall(r"BRANCH-\d+\.", result.stdout + result.stderr))


def unmark(folder: Path, names: set[str]) -> None:
    for path in folder.glob("*/templates/**/*"):
        if path.is_file():
            keep = re.sub(
                r'\{\{-? fail "(BRANCH-\d+\.)" -?\}\}', lambda m: "" if m[1] in names else m[0], path.read_text()
            )
            path.write_text(keep)
    build(folder)


def build(folder: Path) -> None:
    command = ["helm", "dependency", "build", "--skip-refresh", "flaskapp"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def untaken(folder: Path, marks: dict[str, str]) -> set[str]:
    shipped = {("flaskapp", "web", json.dumps(values, sort_keys=True)) for values in RELEASE_VALUES.values()}
    every = sorted(shipped | cases("flaskapp") | cases("postgresql"))
    left = set(marks)
    for chart, _, values in every:
        left -= run(folder, "helm", "lint", chart, "--values", "-", values=values)
    # A lint has one release name and no nulls, so the rest is rendered, up to the first mark, which then is taken away.
    unmark(folder, set(marks) - left)
    for chart, release, values in (case for case in every if "null" in case[2] or case[1] != "web"):
        while hit := run(folder, "helm", "template", release, chart, "--values", "-", values=values) & left:
            left -= hit
            unmark(folder, hit)
    return left


def test_every_branch_is_taken(tmp_path: Path) -> None:
    for chart in ("flaskapp", "postgresql"):
        shutil.copytree(CHARTS / chart, tmp_path / chart, ignore=shutil.ignore_patterns("charts", "values.schema.json"))
    marks = mark(tmp_path)
    build(tmp_path)
    left = untaken(tmp_path, marks)
    with_cluster = {name for name in left if any(word in marks[name] for word in WITH_CLUSTER)}
    print(f"{len(marks)} branches, {len(marks) - len(left)} taken, {len(with_cluster)} need a cluster")
    remaining = sorted(marks[name] for name in left - with_cluster)
    assert not remaining, "\n".join(remaining)
