"""The chart as it is released: the repository's own, with the image's digest, the versions and the name written in."""

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import yaml

from flaskapp_deploy import programs, shell
from flaskapp_deploy.images.baseimages import EPOCH
from flaskapp_deploy.release.config import ReleaseConfig
from flaskapp_deploy.release.state import Image, ReleaseState
from flaskapp_deploy.shell import DeployError

# What a render without a cluster needs: neither passwords nor random settings can be made there.
WITHOUT_CLUSTER = ["--set=postgresql.auth.existingSecret=made-by-the-release", "--set-json=secrets.generate=[]"]


def prepare(config: ReleaseConfig, release: ReleaseState, image: Image, folder: Path) -> Path:
    """Copy the chart into `folder`, as this commit's: named after the release, with its versions and its image.

    The image goes by its digest; the tag is for people.
    """
    target = folder / config.name
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(config.chart, target, symlinks=True)
    keys = {"name": config.name, "version": release.chart_version, "appVersion": f'"{release.version}"'}
    (target / "Chart.yaml").write_text(_with((target / "Chart.yaml").read_text(), keys))
    block = {"repository": image.repository, "tag": release.version, "digest": image.digest}
    # What an empty section of the values becomes is in the second file, where a chart has one.
    for values in filter(Path.exists, (target / "values.yaml", target / "files/defaults.yaml")):
        before, line, rest = values.read_text().partition("\nimage:\n")
        values.write_text(before + line + _with(rest, {f"  {key}": f'"{value}"' for key, value in block.items()}))
        written = yaml.safe_load(values.read_text()).get("image", {})
        if {key: written.get(key) for key in block} != block:
            name = values.relative_to(target)
            raise DeployError(f"{config.chart.name}/{name} has no image.repository, image.tag and image.digest")
    shutil.rmtree(target / "charts", ignore_errors=True)
    for dependency in yaml.safe_load((target / "Chart.yaml").read_text()).get("dependencies", []):
        if not dependency["repository"].startswith("file://"):
            raise DeployError(f"the dependency {dependency['name']} is not a file:// next to the chart: vendor it")
        # Relative to where the chart was.
        place = config.chart / dependency["repository"].removeprefix("file://")
        package(place.resolve(), target / "charts")
    return target


def package(chart: Path, folder: Path) -> Path:
    """Make one archive; equal charts give equal archives, whenever they were checked out."""
    with tempfile.TemporaryDirectory(prefix="flaskapp-chart-") as work:
        copy = Path(work) / chart.name
        shutil.copytree(chart, copy, symlinks=True)
        for path in [copy, *copy.rglob("*")]:
            os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)
        output = _helm("package", str(copy), "--destination", str(folder))
    return Path(output.rpartition(": ")[2].strip())


def render(config: ReleaseConfig, chart: Path) -> str:
    """Return the manifests of a release with this chart, as they are without a look at the cluster."""
    values = [f"--values={file}" for file in config.release_values]
    return _helm("template", config.name, str(chart), f"--namespace={config.namespace}", *values, *WITHOUT_CLUSTER)


def url_scheme(config: ReleaseConfig) -> str:
    """Return the scheme of the URL that the bundled database's Secret has, by the release's values."""
    scheme = "postgresql"
    for file in config.release_values:
        section = (yaml.safe_load(file.read_text()) or {}).get("postgresql") or {}
        scheme = (section.get("auth") or {}).get("urlScheme") or scheme
    return scheme


def _helm(*arguments: str) -> str:
    result = shell.run(programs.program("chart", "helm"), *arguments, check=False)
    if result.returncode:
        raise DeployError(f"helm {arguments[0]} failed: {result.stderr.strip().removeprefix('Error: ')}")
    return result.stdout


def _with(text: str, keys: Mapping[str, str]) -> str:
    """Put other values to the first line of each key in a YAML text; everything else, comments too, stays."""
    for key, value in keys.items():
        text = re.sub(rf"^{key}: .*$", f"{key}: {value}", text, count=1, flags=re.MULTILINE)
    return text
