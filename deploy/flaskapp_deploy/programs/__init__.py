"""Pinned command-line tools: each folder beside this file is a Go module whose `tool` lines name what it builds.

`binaries("chart")` returns a directory that holds the group's programs, built once for each version of go.mod and
go.sum into the user's cache. go.sum and the Go checksum database check what is downloaded.
"""

import hashlib
import json
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from flaskapp_deploy import shell
from flaskapp_deploy.shell import DeployError, cache, locked, say

ROOT = Path(__file__).parent
GO = "Go 1.21 or newer from go.dev/dl"
# Said before a cold build starts; measured on 2 cores.
MINUTES = {"kubernetes": 11, "chart": 4, "images": 3, "registry": 4, "pipeline": 4, "helm3": 1, "kind": 1}
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
    """Return the tools that a group's go.mod names, with the versions that it pins."""
    module = json.loads(_go(["mod", "edit", "-json"], group))
    versions = {required["Path"]: required["Version"].lstrip("v") for required in module["Require"] or []}
    tools = []
    for package in (line["Path"] for line in module["Tool"]):
        owner = max((path for path in versions if f"{package}/".startswith(f"{path}/")), key=len, default="")
        tools.append(Tool(package, owner, versions.get(owner, "")))
    return tools


def binaries(group: str) -> Path:
    """Return the directory of a group's programs, after building those that are missing.

    Safe to interrupt, and to run twice at once: a program appears under its name only when it is whole.

    Raises:
        DeployError: there is no Go, no such group, or a build failed.
    """
    if group not in groups():
        raise DeployError(f"there is no tool group {group!r}; the groups are {', '.join(groups())}")
    directory = cache() / "tools" / f"{group}-{_key(group)}"
    if (directory / "complete").exists():
        return directory
    tools = tools_of(group)
    with locked(directory.with_suffix(".lock"), f"waiting for another build of the {group} tools"):
        missing = [tool for tool in tools if not (directory / tool.name).exists()]
        directory.mkdir(parents=True, exist_ok=True)
        for tool in list(missing):
            if installed := _on_path(tool):
                say(f"{group} tools: using {installed} ({tool.version})")
                (directory / tool.name).symlink_to(installed)
                missing.remove(tool)
        if missing:
            _build(group, missing, directory)
        (directory / "complete").touch()
    return directory


def _build(group: str, tools: list[Tool], directory: Path) -> None:
    minutes = MINUTES.get(group, 2)
    say(f"building the {group} tools of programs/{group}/go.mod: about {minutes} minutes the first time, cached after")
    started = time.monotonic()
    for number, tool in enumerate(tools, 1):
        say(f"  {number} of {len(tools)}  {tool.name} {tool.version}  ({time.monotonic() - started:.0f} s so far)")
        unfinished = directory / f".{tool.name}.{os.getpid()}"
        major, minor, *_ = f"{tool.version}..".split(".")
        stamp = STAMPS.get(tool.module, "").format(version=tool.version, major=major, minor=minor)
        flags = f"-s -w {stamp}"
        try:
            _go(["build", "-mod=readonly", "-trimpath", "-ldflags", flags, "-o", str(unfinished), tool.package], group)
            unfinished.rename(directory / tool.name)
        finally:
            unfinished.unlink(missing_ok=True)
    say(f"built the {group} tools in {time.monotonic() - started:.0f} s")


def _go(arguments: list[str], group: str) -> str:
    """Run the Go command in a group's folder and return what it printed."""
    go = shutil.which("go")
    if go is None:
        raise DeployError(f"Go is not on the PATH; install {GO} (or golang by apt-get or dnf)")
    environment = {"CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}
    # An older Go can't read these go.mod files; from 1.21 on it takes the version that they name.
    version = shell.run(go, "env", "GOVERSION", env=environment, check=False).stdout.strip()
    if (match := re.match(r"go1\.(\d+)", version)) and int(match[1]) < 21:
        raise DeployError(f"{go} is {version.removeprefix('go')}; put {GO} first on the PATH")
    result = shell.run(go, *arguments, cwd=ROOT / group, env=environment, check=False)
    if result.returncode:
        last = shell.tail(result.stderr, 15)
        raise DeployError(f"`go {arguments[0]}` in programs/{group} failed; its last lines:\n{last}")
    return result.stdout


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
    program = shutil.which(tool.name)
    if program is None or not tool.version:
        return None
    for argument in ("--version", "version"):
        try:
            result = shell.run(program, argument, check=False, timeout=5)
        except (DeployError, OSError):
            return None
        if result.returncode == 0:  # some know `version` only
            words = re.split(r'[\s,"]+', result.stdout + result.stderr)
            versions = {word.partition("+")[0] for word in words}
            return program if {tool.version, f"v{tool.version}"} & versions else None
    return None
