"""Every branch of every template is taken by some test's values.

Each branch of a copy of the charts is marked with `fail`, which `helm lint` only logs; the logs of one lint for each
set of values that the unit suites and the repository use say which branches were taken. `pytest -s` prints the count.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.render import CHARTS, RELEASE_VALUES, merged, values_of

OPENS = re.compile(r"\{\{-? *(?:if|with|range|else)\b(?:(?!\}\}).)*\}\}", re.DOTALL)
# Taken only where `lookup` answers; the unit suites take them with a cluster of their own.
WITH_CLUSTER = (
    "handedOverReplicas",
    "$kept",
    "clusterAnswers",
    "$live",
    "$keep",
    "$clientSide",
    "managedFields",
    '(ne .manager "helm")',
)


def mark(folder: Path) -> dict[str, str]:
    """Put a mark behind each branch's opening; gives what each mark stands for."""
    marks: dict[str, str] = {}

    def marked(found: re.Match[str], path: Path) -> str:
        name = f"BRANCH-{len(marks)}."
        marks[name] = f"{path.relative_to(folder)}: {found[0]}"
        return (
            f'{found[0]}{{{{- fail "{name}" -}}}}' if found[0].endswith("-}}") else f'{found[0]}{{{{ fail "{name}" }}}}'
        )

    for path in sorted(folder.glob("*/templates/**/*")):
        if path.is_file() and path.name != "NOTES.txt":
            path.write_text(OPENS.sub(lambda found, path=path: marked(found, path), path.read_text()))
    return marks


def set_path(values: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = re.split(r"(?<!\\)\.", dotted)
    for key in parents:
        values = values.setdefault(key, {})
    values[last] = value


def unit_values(chart: str) -> list[dict[str, Any]]:
    """The values of each case of a chart's unit suites."""
    found = []
    for path in sorted((CHARTS / chart / "tests").glob("*_test.yaml")):
        suite = yaml.safe_load(path.read_text())
        for case in suite["tests"]:
            files = [values_of(path.parent / name) for name in [*suite.get("values", []), *case.get("values", [])]]
            own: dict[str, Any] = {}
            for key, value in {**suite.get("set", {}), **case.get("set", {})}.items():
                layer: dict[str, Any] = {}
                set_path(layer, key, value)
                own = merged(own, layer)
            found.append(merged(*files, own))
    return found


@pytest.fixture(scope="module")
def missed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], set[str]]:
    folder = tmp_path_factory.mktemp("charts")
    for chart in ("flaskapp", "postgresql"):
        shutil.copytree(CHARTS / chart, folder / chart, ignore=shutil.ignore_patterns("charts", "values.schema.json"))
    marks = mark(folder)
    command = ["helm", "dependency", "build", "--skip-refresh", "flaskapp"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    left = set(marks)
    alone = [{"postgresql": values} for values in unit_values("postgresql")]
    distinct = {json.dumps(v, sort_keys=True) for v in [*RELEASE_VALUES.values(), *unit_values("flaskapp"), *alone]}
    for values in sorted(distinct):
        command = ["helm", "lint", "flaskapp", "--values", "-"]
        done = subprocess.run(command, cwd=folder, input=values, check=False, capture_output=True, text=True)
        left -= set(re.findall(r"BRANCH-\d+\.", done.stdout + done.stderr))
    return marks, left


def test_every_branch_is_taken(missed: tuple[dict[str, str], set[str]]) -> None:
    marks, left = missed
    with_cluster = {name for name in left if any(word in marks[name] for word in WITH_CLUSTER)}
    print(f"{len(marks)} branches, {len(marks) - len(left)} taken, {len(with_cluster)} need a cluster")
    assert sorted(marks[name] for name in left - with_cluster) == []
