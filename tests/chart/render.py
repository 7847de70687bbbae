"""Render charts, and read the objects."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHARTS = ROOT / "charts"
# Values for rendering without a cluster, where neither the database's passwords nor random settings can be generated.
WITHOUT_CLUSTER = {"postgresql": {"auth": {"existingSecret": "database"}}, "secrets": {"generate": []}}

Object = dict[str, Any]


class RenderError(Exception):
    """helm refused to render; the message is helm's."""


def values_of(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(path.read_text())
    return loaded


def run_helm(*arguments: str, stdin: str | None = None, program: str = "helm") -> str:
    result = subprocess.run(
        [program, *arguments], cwd=ROOT, input=stdin, check=False, capture_output=True, text=True, timeout=60
    )
    if result.returncode:
        raise RenderError(result.stderr.strip())
    return result.stdout


@cache
def _render(chart: str, name: str, values: str, arguments: tuple[str, ...]) -> str:
    return run_helm(
        "template", name, f"charts/{chart}", "--namespace", "shop", "--values", "-", *arguments, stdin=values
    )


def render_text(
    chart: str = "flaskapp", values: dict[str, Any] | None = None, *arguments: str, name: str = "web"
) -> str:
    return _render(chart, name, json.dumps(values or {}), arguments)


def render(
    chart: str = "flaskapp", values: dict[str, Any] | None = None, *arguments: str, name: str = "web"
) -> list[Object]:
    return [item for item in yaml.safe_load_all(render_text(chart, values, *arguments, name=name)) if item]


def one(objects: list[Object], kind: str, name: str = "") -> Object:
    """Return the only object of a kind whose name ends in `name`."""
    matching = [item for item in objects if item["kind"] == kind and item["metadata"]["name"].endswith(name)]
    assert len(matching) == 1, f"{len(matching)} {kind} {name}: {[item['metadata']['name'] for item in matching]}"
    return matching[0]


def merged(*layers: dict[str, Any]) -> dict[str, Any]:
    """Merge values as helm does, later ones over earlier ones."""
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            both = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = merged(result[key], value) if both else value
    return result


ENVIRONMENTS = sorted((ROOT / "environments").glob("*.yaml"))


def layers_of(environment: Path) -> list[dict[str, Any]]:
    """Return the values files of an environment: `production-rds` goes over `production`, and so on."""
    base = environment.with_stem(environment.stem.split("-")[0])
    return [values_of(path) for path in dict.fromkeys([base, environment]) if path.exists()]


# Every set of values in the repository, and one that enables everything.
RELEASE_VALUES = {
    "default": WITHOUT_CLUSTER,
    "everything": merged(values_of(Path(__file__).parent / "everything.yaml"), WITHOUT_CLUSTER),
    **{path.stem: merged(*layers_of(path), WITHOUT_CLUSTER) for path in ENVIRONMENTS},
    **{
        path.parent.name: merged(values_of(path), WITHOUT_CLUSTER)
        for path in sorted((ROOT / "examples").glob("*/values.yaml"))
    },
}
