"""The chart as it is released: the repository's own, with the image's digest, the versions and the name written in."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from flaskapp_deploy import programs
from flaskapp_deploy.images.baseimages import EPOCH
from flaskapp_deploy.release.config import Release
from flaskapp_deploy.shell import DeployError

# What a render without a cluster needs: neither passwords nor random settings can be made there.
WITHOUT_CLUSTER = ["--set=postgresql.auth.existingSecret=made-by-the-release", "--set-json=secrets.generate=[]"]


def prepare(release: Release, state: Mapping[str, Any], image: Mapping[str, str], folder: Path) -> Path:
    """Copy the chart into `folder`, as this commit's: named after the release, with its versions and its image.

    Args:
        image: `repository` and `digest`; the tag is the version, for people.
    """
    target = folder / release.name
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(release.chart, target, symlinks=True)
    _write(target / "Chart.yaml", {"name": release.name, "version": state["chart_version"]}, state["version"])
    values = target / "values.yaml"
    block = {"repository": image["repository"], "tag": state["version"], "digest": image["digest"]}
    values.write_text(_with_image(values.read_text(), block))
    written = yaml.safe_load(values.read_text()).get("image", {})
    if {key: written.get(key) for key in block} != block:
        raise DeployError(f"{release.chart.name}/values.yaml has no image.repository, image.tag and image.digest")
    shutil.rmtree(target / "charts", ignore_errors=True)
    for dependency in yaml.safe_load((target / "Chart.yaml").read_text()).get("dependencies", []):
        if not dependency["repository"].startswith("file://"):
            raise DeployError(f"the dependency {dependency['name']} is not at a file:// beside the chart: vendor it")
        # Relative to where the chart was.
        place = release.chart / dependency["repository"].removeprefix("file://")
        package(place.resolve(), target / "charts")
    return target


def package(chart: Path, folder: Path) -> Path:
    """One archive; equal charts give equal archives, whenever they were checked out."""
    with tempfile.TemporaryDirectory(prefix="flaskapp-chart-") as work:
        copy = Path(work) / chart.name
        shutil.copytree(chart, copy, symlinks=True)
        for path in [copy, *copy.rglob("*")]:
            os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)
        message = helm("package", str(copy), "--destination", str(folder))
    return Path(message.rpartition(": ")[2].strip())


def render(release: Release, chart: Path) -> str:
    """The manifests of a release with this chart, as they are without a look at the cluster."""
    values = [f"--values={file}" for file in release.release_values]
    return helm("template", release.name, str(chart), f"--namespace={release.namespace}", *values, *WITHOUT_CLUSTER)


def helm(*arguments: str, check: bool = True) -> str:
    result = run(*arguments)
    if check and result.returncode:
        raise DeployError(f"helm {arguments[0]} failed: {result.stderr.strip().removeprefix('Error: ')}")
    return result.stdout


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """The pinned helm: an image for builds may bring another."""
    return subprocess.run([str(programs.binaries("chart") / "helm"), *arguments], capture_output=True, text=True)


def _write(path: Path, keys: Mapping[str, str], app_version: str) -> None:
    text = path.read_text()
    for key, value in {**keys, "appVersion": f'"{app_version}"'}.items():
        text = re.sub(rf"^{key}: .*$", f"{key}: {value}", text, count=1, flags=re.MULTILINE)
    path.write_text(text)


def _with_image(text: str, block: Mapping[str, str]) -> str:
    """The values with other lines under `image:`; everything else, comments too, stays."""
    start, found, rest = (
        re.split(r"^(image:\n)", text, maxsplit=1, flags=re.MULTILINE) if "\nimage:\n" in text else (text, "", "")
    )
    for key, value in block.items():
        rest = re.sub(rf"^  {key}: .*$", f'  {key}: "{value}"', rest, count=1, flags=re.MULTILINE)
    return start + found + rest
