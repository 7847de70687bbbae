"""Packages that the local cluster and the image builder stand on: Debian's, or Amazon Linux' for the builder."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from flaskapp_deploy import shell
from flaskapp_deploy.shell import DeployError

# A program that must be there, and the package that brings it. A program that is installed is left alone.
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
    "slirp4netns": "slirp4netns",
    "socat": "socat",
}
IMAGES = {"runc": "runc", "git": "git"}
# Needed only where no registry answers, for images made of Debian packages.
STAND_INS = {"debootstrap": "debootstrap", "dpkg-deb": "dpkg"}
# What Amazon Linux 2023 has of these, by the same names.
DNF = {"runc", "git"}
POLICY = Path("/usr/sbin/policy-rc.d")
NO = "#!/bin/sh\nexit 101\n"
# Another command's apt-get may be at work, one whose caller was killed, too.
WAIT = "--option=DPkg::Lock::Timeout=300"


def require_root() -> None:
    """Refuse, in one line, a machine on which the local cluster can't run at all."""
    if sys.platform != "linux":
        raise DeployError("the local cluster needs Linux; start Docker (kind is used then) or set KUBE_CONTEXT=…")
    if os.geteuid() != 0:
        raise DeployError("the local cluster needs root; run `sudo make up`, start Docker, or set KUBE_CONTEXT=…")


def ensure(programs: Mapping[str, str]) -> None:
    """Install the packages of the programs that are missing, after printing what will be done.

    Nothing is removed and no service is started.
    """
    packages = sorted({package for program, package in programs.items() if shutil.which(program) is None})
    if not packages:
        return
    if shutil.which("apt-get") is None:
        _dnf(packages)
        return
    shell.say(f"installing Debian packages, removing none and starting no service: {' '.join(packages)}")
    with shell.locked(shell.cache() / "packages.lock", "waiting for another installation of packages"), _no_services():
        _run("apt-get", "update", "-qq")
        _run("apt-get", "install", WAIT, "-y", "--no-install-recommends", "--no-remove", *packages)


def busybox() -> Path:
    """Return a static busybox of Debian's package, which would replace another busybox if it were installed."""
    return file_of("busybox-static", "bin/busybox", "usr/bin/busybox")


def file_of(package: str, *patterns: str) -> Path:
    """Return the file that one of the patterns matches in a Debian package, taken without installing the package."""
    kept = shell.cache() / Path(patterns[0]).name
    if not kept.exists():
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            # apt's own user may not enter the directory; root downloads then, and apt says so.
            try:
                _run("apt-get", "download", package, cwd=directory)
            except DeployError:  # a machine that never fetched the list of packages
                _run("apt-get", "update", "-qq")
                _run("apt-get", "download", package, cwd=directory)
            [archive] = directory.glob(f"{package}_*.deb")
            _run("dpkg-deb", "-x", str(archive), name)
            shell.copy_atomic(next(path for pattern in patterns for path in directory.glob(pattern)), kept)
    return kept


@contextmanager
def _no_services() -> Iterator[None]:
    """Debian's own way to keep packages from starting their services: a policy that says no."""
    if POLICY.exists() and POLICY.read_text() != NO:
        yield
        return
    POLICY.write_text(NO)  # or one of ours, which a killed command left
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()


def _dnf(packages: list[str]) -> None:
    """Install packages on Amazon Linux; dnf neither removes others nor starts services."""
    if shutil.which("dnf") is None or not DNF.issuperset(packages):
        raise DeployError(f"not installed, and no apt-get here: {', '.join(packages)}\n  install them and try again")
    shell.say(f"installing packages by dnf: {' '.join(packages)}")
    _run("dnf", "install", "--assumeyes", "--quiet", *packages)


def _run(*command: str, cwd: Path | None = None) -> None:
    result = shell.run(*command, cwd=cwd, env={"DEBIAN_FRONTEND": "noninteractive"}, check=False, survives=True)
    if result.returncode:
        words = " ".join(word for word in command if not word.startswith("-"))
        raise DeployError(f"`{words}` failed; its last lines:\n{shell.tail(result.stdout + result.stderr)}")
