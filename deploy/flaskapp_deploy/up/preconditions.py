"""What `up` needs, looked at in the first seconds: a failure is one line with its remedy, before anything is made."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from flaskapp_deploy import machine, shell
from flaskapp_deploy.cluster import localcluster
from flaskapp_deploy.programs import packages
from flaskapp_deploy.release import config
from flaskapp_deploy.release.config import ReleaseConfig
from flaskapp_deploy.shell import DeployError
from flaskapp_deploy.up.target import Context, Local, Target

GIB = 2**30
# Programs that are compiled, with Go's build cache; and what images and a database take once they are there.
FIRST_DISK, DISK = 10 * GIB, 2 * GIB
MEMORY = 3 * GIB // 2
# What Debian's packages are called elsewhere; nobody has run the local cluster there yet (docs/systems.md).
PACKAGES = {
    "dnf": "etcd containerd runc containernetworking-plugins iptables-nft conntrack-tools iproute procps-ng socat git",
    "pacman": "etcd containerd runc cni-plugins iptables conntrack-tools iproute2 procps-ng socat git",
}


def check(release: ReleaseConfig, target: Target, port: int | None) -> None:
    """Fail where `up` would fail later.

    Raises:
        DeployError: the first thing that is missing or wrong, and what to do.
    """
    shell.seconds(0)  # TIMEOUT_FACTOR is a number
    config.check(release)
    check_application(release.application)
    for file in release.values:
        check_values(file, release.chart)
    if isinstance(target, Context):
        target.check_image()
    if isinstance(target, Local):
        check_packages()
        check_disk()
        check_memory(target.instance)
    if port:
        check_port(port, release, target)


def check_application(directory: Path) -> None:
    """The image is built of what the directory requires."""
    if not any((directory / name).is_file() for name in ("requirements.lock", "requirements.txt", "pyproject.toml")):
        raise DeployError(
            f"APP={directory} has no requirements.txt\n"
            "  add one (pip freeze > requirements.txt), or a pyproject.toml; or name another directory"
        )


def check_values(file: Path, chart: Path) -> None:
    """A values file is YAML, and has the names and types of the chart's schema."""
    try:
        values = yaml.safe_load(file.read_text()) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DeployError(f"VALUES={file} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise DeployError(
            f"VALUES={file} holds a {type(values).__name__}; a values file has lines such as `replicas: 2`"
        )
    problems = list(problems_of(values, chart, ""))
    for name, inner in values.items():  # of a subchart
        for home in (chart / "charts" / str(name), chart.parent / str(name)):
            problems += problems_of(inner, home, f"{name}.") if isinstance(inner, dict) else []
    if problems:
        lines = "".join(f"\n  {problem}" for problem in dict.fromkeys(problems))
        raise DeployError(f"VALUES={file} does not fit the chart {chart.name}:{lines}")


def problems_of(values: dict[str, Any], chart: Path, prefix: str) -> Iterator[str]:
    """A line for each value that the chart's schema refuses, and for each that has another name in it."""
    path = chart / "values.schema.json"
    schema = json.loads(path.read_text()) if path.is_file() else {}
    for error in jsonschema.Draft7Validator(schema).iter_errors(values):
        place = prefix + "".join(f"{part}." for part in error.absolute_path)
        if error.validator == "additionalProperties" and error.schema.get("additionalProperties") is False:
            names = {name for name, node in error.schema["properties"].items() if not node.get("deprecated")}
            for key in set(error.instance) - set(error.schema["properties"]):
                yield f"{place}{key} is unknown{machine.did_you_mean(str(key), names)}"
        elif error.instance is not None:  # null in a file takes out what another file has
            yield f"{place.rstrip('.')}: {error.message[:200]}"
    for name, node in schema.get("properties", {}).items():
        if node.get("deprecated") and name in values:
            yield f"{prefix}{name} has another name here: {node['description'].removeprefix('Called ').rstrip('.')}"


def check_packages() -> None:
    """Where there is no apt-get, what the local cluster stands on must be installed already."""
    programs = packages.CLUSTER | packages.IMAGES
    missing = [program for program in programs if shutil.which(program) is None]
    if missing and shutil.which("apt-get") is None:
        names = next((names for manager, names in PACKAGES.items() if shutil.which(manager)), "")
        raise DeployError(
            f"the local cluster needs programs that are not here: {', '.join(missing)}\n"
            f"  install their packages{names and f' ({names})'}, or {machine.ELSEWHERE}"
        )


def check_disk() -> None:
    """Room for programs, images and volumes."""
    for directory, reserve in ((shell.cache(), FIRST_DISK), (localcluster.state_root(), DISK)):
        if reserve == FIRST_DISK and list(shell.cache().glob("tools/kubernetes-*/complete")):
            reserve = DISK
        present = next(one for one in (directory, *directory.parents) if one.exists())
        free = shutil.disk_usage(present).free
        if free < reserve:
            variable = "XDG_CACHE_HOME" if directory == shell.cache() else "XDG_STATE_HOME"
            raise DeployError(
                f"{present} has {free / GIB:.1f} GiB of free disk, and the local cluster needs {reserve / GIB:.0f}\n"
                f"  free some (`make clean` deletes caches), or set {variable} to a directory on another disk"
            )


def check_memory(instance: str) -> None:
    """Room for a control plane, a node and the application, where they don't run yet."""
    cluster = localcluster.load(instance)
    if cluster and cluster.runs("kube-apiserver"):
        return
    free = machine.available_memory()
    if free < MEMORY:
        raise DeployError(
            f"{free / GIB:.1f} GiB of memory are available, and the local cluster needs {MEMORY / GIB:.1f}\n"
            f"  end other programs or clusters, or {machine.ELSEWHERE}"
        )


def check_port(port: int, release: ReleaseConfig, target: Target) -> None:
    """The port is free, or leads to this release already."""
    if shell.is_free(port):
        return
    service = target.service_at(port) if isinstance(target, Local) else ""
    if not service.startswith(f"{release.namespace}-"):
        by = f" by the application {service}" if service else ""
        raise DeployError(f"port {port} on 127.0.0.1 is in use{by}; choose another one with PORT=…")
