"""Packages that the local cluster and the image builder stand on: Debian's, or Amazon Linux' for the builder."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from flaskapp_deploy import shell
from flaskapp_deploy.shell import DeployError

# A program that must be there, and the package that brings it. A program that is there already is left alone.
CLUSTER = {
    "etcd": "etcd-server",
    "containerd": "containerd",
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "sysctl": "procps",
    "nsenter": "util-linux",
    "socat": "socat",
}
IMAGES = {"runc": "runc", "git": "git"}
# Wanted only where no registry answers, for images made of Debian packages.
STAND_INS = {"debootstrap": "debootstrap", "dpkg-deb": "dpkg"}
# What Amazon Linux 2023 has of these, by dnf's names.
DNF = {"runc": "runc", "git": "git"}
POLICY = Path("/usr/sbin/policy-rc.d")


def require_root() -> None:
    """Fail with one line where this can't work at all."""
    if sys.platform != "linux":
        raise DeployError("the local cluster needs Linux; start Docker (kind is used then) or set KUBE_CONTEXT=…")
    if os.geteuid() != 0:
        raise DeployError("the local cluster needs root; run `sudo make up`, start Docker, or set KUBE_CONTEXT=…")


def ensure(programs: Mapping[str, str]) -> None:
    """Install the packages of the programs that are missing, after printing what will be done.

    Nothing is removed and no service is started.
    """
    packages = sorted({package for program, package in programs.items() if not _found(program)})
    if not packages:
        return
    if shutil.which("apt-get") is None:
        _dnf(packages)
        return
    shell.say(f"installing Debian packages, removing none and starting no service: {' '.join(packages)}")
    with _no_services():
        _apt("update", "-qq")
        _apt("install", "-y", "--no-install-recommends", "--no-remove", *packages)


def busybox() -> Path:
    """A static busybox out of Debian's package, taken without installing it (it would replace another busybox)."""
    kept = shell.cache() / "busybox"
    if not kept.exists():
        with tempfile.TemporaryDirectory() as directory:
            # apt's own user may not enter the directory; root downloads then, and apt says so.
            try:
                _apt("download", "busybox-static", cwd=directory)
            except DeployError:  # a machine that never asked for the list of packages
                _apt("update", "-qq")
                _apt("download", "busybox-static", cwd=directory)
            [package] = Path(directory).glob("busybox-static_*.deb")
            subprocess.run(["dpkg-deb", "-x", str(package), directory], check=True)
            kept.parent.mkdir(parents=True, exist_ok=True)
            program = next(path for place in ("bin", "usr/bin") if (path := Path(directory, place, "busybox")).exists())
            shutil.copy(program, kept)
    return kept


def _found(program: str) -> bool:
    return shutil.which(program) is not None


@contextmanager
def _no_services() -> Iterator[None]:
    """Debian's own way to keep packages from starting their services: a policy that says no."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()


def _dnf(packages: list[str]) -> None:
    """Install packages on Amazon Linux; dnf neither removes others nor starts services."""
    if shutil.which("dnf") is None or not set(packages) <= set(DNF):
        raise DeployError(f"not installed, and no apt-get here: {', '.join(packages)}\n  install them and try again")
    names = [DNF[package] for package in packages]
    shell.say(f"installing packages by dnf: {' '.join(names)}")
    result = subprocess.run(["dnf", "install", "--assumeyes", "--quiet", *names], capture_output=True, text=True)
    if result.returncode:
        last = "\n".join((result.stdout + result.stderr).strip().splitlines()[-8:])
        raise DeployError(f"`dnf install {' '.join(names)}` failed; its last lines:\n{last}")


def _apt(*arguments: str, cwd: str | None = None) -> None:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    result = subprocess.run(["apt-get", *arguments], cwd=cwd, env=environment, capture_output=True, text=True)
    if result.returncode:
        last = "\n".join((result.stdout + result.stderr).strip().splitlines()[-8:])
        raise DeployError(f"`apt-get {' '.join(arguments)}` failed; its last lines:\n{last}")
