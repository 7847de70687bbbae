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
# Values for rendering without a cluster, where neither the database's passwords nor random settings can be generated,
# and the image, which every release names.
WITHOUT_CLUSTER: dict[str, Any] = {
    "image": {"repository": "registry.example.com/shop", "tag": "1.2"},
    "postgresql": {"auth": {"existingSecret": "database"}},
    "secrets": {"generate": []},
}

Object = dict[str, Any]


class RenderError(Exception):
    """helm refused to render; the message is helm's."""


class StrictLoader(yaml.CSafeLoader):
    """Refuses a key that is there twice, of which other loaders silently take the last, and a key that is no text."""


def _mapping(loader: StrictLoader, node: yaml.MappingNode) -> dict[str, Any]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    for key in keys:
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is no text", node.start_mark)
        if keys.count(key) > 1:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is there twice", node.start_mark)
    values = (loader.construct_object(value, deep=True) for _, value in node.value)
    return dict(zip(keys, values, strict=True))


StrictLoader.add_constructor("tag:yaml.org,2002:map", _mapping)


def load(text: str) -> list[Object]:
    """Return rendered objects, read strictly; their labels and annotations are text, as the API server wants them."""
    objects = [item for item in yaml.load_all(text, StrictLoader) if item]
    for item in objects:
        _check_metadata(item, item["kind"])
    return objects


def _check_metadata(node: Any, path: str) -> None:
    if isinstance(node, list):
        for index, item in enumerate(node):
            _check_metadata(item, f"{path}[{index}]")
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in ("labels", "annotations", "matchLabels") and isinstance(value, dict):
                wrong = {name: text for name, text in value.items() if not isinstance(text, str)}
                assert not wrong, f"{path}.{key}: not text: {wrong}"
            _check_metadata(value, f"{path}.{key}")


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
    return load(render_text(chart, values, *arguments, name=name))


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


# An environment is laid over the ledger's values: release.toml, infra/flux.yaml.
LEDGER = values_of(ROOT / "environments/ledger.yaml")
ENVIRONMENTS = sorted(set((ROOT / "environments").glob("*.yaml")) - {ROOT / "environments/ledger.yaml"})


def layers_of(environment: Path) -> list[dict[str, Any]]:
    """Return the values files of an environment: `production-rds` goes over `production`, and so on."""
    base = environment.with_stem(environment.stem.split("-")[0])
    return [values_of(path) for path in dict.fromkeys([base, environment]) if path.exists()]


BUNDLED: dict[str, Any] = merged(WITHOUT_CLUSTER, {"postgresql": {"enabled": True}})
# Every set of values in the repository, and one that enables everything.
RELEASE_VALUES: dict[str, dict[str, Any]] = {
    "default": WITHOUT_CLUSTER,
    "bundled": BUNDLED,
    "everything": merged(values_of(Path(__file__).parent / "everything.yaml"), WITHOUT_CLUSTER),
    "ledger": merged(LEDGER, WITHOUT_CLUSTER),
    "dev without the ledger": merged(values_of(ROOT / "environments/dev.yaml"), WITHOUT_CLUSTER),
    **{path.stem: merged(LEDGER, *layers_of(path), WITHOUT_CLUSTER) for path in ENVIRONMENTS},
    **{
        path.parent.name: merged(values_of(path), WITHOUT_CLUSTER)
        for path in sorted((ROOT / "examples").glob("*/values.yaml"))
    },
}
