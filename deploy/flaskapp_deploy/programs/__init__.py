"""Pinned command-line tools: each folder beside this file is a Go module whose `tool` lines name what it builds.

`binaries("chart")` returns a directory that holds the group's programs, built once for each version of go.mod and
go.sum into the user's cache. go.sum and the Go checksum database check what is downloaded.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from flaskapp_deploy.shell import DeployError, cache, locked, say

ROOT = Path(__file__).parent
# Said before a cold build starts; measured on 2 cores.
MINUTES = {
    "kubernetes": 11,
    "chart": 4,
    "helm3": 1,
    "images": 3,
    "registry": 4,
    "pipeline": 4,
    "kind": 1,
    "policy": 2,
    "enforcer": 2,
}
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
        last = self.package.rpartition("/")[2]
        # A major version is part of a package's path, never the program's name.
        is_major = last.startswith("v") and last[1:].isdigit()
        return self.package.split("/")[-2] if is_major else last


def groups() -> list[str]:
    return sorted(path.parent.name for path in ROOT.glob("*/go.mod"))


def tools_of(group: str) -> list[Tool]:
    """The tools that a group's go.mod names, with the versions that it pins."""
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
            if found := _on_path(tool):
                say(f"{group} tools: using {found} ({tool.version})")
                (directory / tool.name).symlink_to(found)
                missing.remove(tool)
        if missing:
            _build(group, missing, directory)
        (directory / "complete").touch()
    return directory


def _build(group: str, tools: list[Tool], directory: Path) -> None:
    minutes = MINUTES.get(group, 5)
    say(f"building the {group} tools from tools/{group}/go.mod: about {minutes} minutes the first time, cached after")
    started = time.monotonic()
    for number, tool in enumerate(tools, 1):
        say(f"  {number} of {len(tools)}  {tool.name} {tool.version}  ({time.monotonic() - started:.0f} s so far)")
        unfinished = directory / f".{tool.name}.{os.getpid()}"
        flags = f"-s -w {_stamp(tool)}"
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
        raise DeployError(
            "Go is not on the PATH; install Go 1.21 or newer from go.dev/dl (or golang by apt-get or dnf)"
        )
    environment = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}
    # An older Go can't read these go.mod files; from 1.21 on it takes the version that they name.
    version = subprocess.run([go, "env", "GOVERSION"], env=environment, capture_output=True, text=True).stdout.strip()
    if (match := re.match(r"go1\.(\d+)", version)) and int(match[1]) < 21:
        raise DeployError(
            f"{go} is {version.removeprefix('go')}; put Go 1.21 or newer from go.dev/dl first on the PATH"
        )
    result = subprocess.run([go, *arguments], cwd=ROOT / group, env=environment, capture_output=True, text=True)
    if result.returncode:
        last = "\n".join(result.stderr.strip().splitlines()[-15:])
        raise DeployError(f"`go {arguments[0]}` in tools/{group} failed; its last lines:\n{last}")
    return result.stdout


def _key(group: str) -> str:
    """What decides whether a build can be used again: the pins, our own programs and the stamps."""
    pins = (ROOT / group / "go.mod").read_text()
    digest = hashlib.sha256(repr([stamp for stamp in STAMPS.items() if f"{stamp[0]} v" in pins]).encode())
    for path in sorted((ROOT / group).rglob("*")):
        if path.name in {"go.mod", "go.sum"} or path.suffix == ".go":
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _stamp(tool: Tool) -> str:
    major, minor, *_ = f"{tool.version}..".split(".")
    return STAMPS.get(tool.module, "").format(version=tool.version, major=major, minor=minor)


def _on_path(tool: Tool) -> str | None:
    """The path of an installed program that says it is this version, or None."""
    found = shutil.which(tool.name)
    if found is None or not tool.version:
        return None
    for argument in ("--version", "version"):
        try:
            result = subprocess.run([found, argument], capture_output=True, text=True, timeout=5)
        except (OSError, subprocess.TimeoutExpired):
            return None
        if result.returncode:  # it knows `version` only
            continue
        words = (result.stdout + result.stderr).replace(",", " ").replace('"', " ").split()
        said = {word.partition("+")[0] for word in words}
        return found if {tool.version, f"v{tool.version}"} & said else None
    return None
