"""release.json: what each step of a release leaves for the next ones, and for those who ask later."""

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

from flaskapp_deploy.resources import ROOT
from flaskapp_deploy.shell import DeployError, write_atomic

FOLDER = ROOT / "build/release"
FILE = "release.json"
# Which command leaves a key behind.
MADE_BY = {"image": "push", "chart": "package", "outcome": "release"}


def read(folder: Path = FOLDER) -> dict[str, Any]:
    """What is known so far; nothing at all is an empty one."""
    path = folder / FILE
    return dict(json.loads(path.read_text())) if path.exists() else {}


def need(*keys: str, folder: Path = FOLDER) -> dict[str, Any]:
    """What is known, with these keys for certain.

    Raises:
        DeployError: a step was left out; the message names it.
    """
    found = read(folder)
    for key in keys:
        if key not in found:
            raise DeployError(f"{FILE} has no {key!r}: run `deploy/flaskapp-deploy {MADE_BY.get(key, key)}` first")
    return found


def exports(folder: Path = FOLDER) -> list[str]:
    """Lines for the shell that export what is known of VERSION, CHART_VERSION, IMAGE_DIGEST and CHART_DIGEST."""
    known = read(folder)
    values = {
        "VERSION": known.get("version", ""),
        "CHART_VERSION": known.get("chart_version", ""),
        "IMAGE_DIGEST": known.get("image", {}).get("digest", ""),
        "CHART_DIGEST": known.get("chart", {}).get("digest", ""),
    }
    return [f"export {name}={shlex.quote(value)}" for name, value in values.items()]


def start(folder: Path = FOLDER, **values: Any) -> None:
    """Begin anew: what an earlier release left is not this one's."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    add(folder, **values)


def add(folder: Path = FOLDER, /, **values: Any) -> None:
    """Add keys, or replace them."""
    write_atomic(folder / FILE, json.dumps(read(folder) | values, indent=2, sort_keys=True) + "\n")
