"""The release path where releases are built: Amazon Linux 2023 has no apt, dpkg or debootstrap, and no `nogroup`."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flaskapp_deploy import programs
from flaskapp_deploy.programs import packages
from flaskapp_deploy.shell import DeployError
from tests import amazon_linux
from tests.amazon_linux import ROOT

needs_namespace = pytest.mark.skipif(not amazon_linux.can_run(), reason="needs root for a mount namespace")
START = """
import sys
from pathlib import Path
from flaskapp_deploy.up.postgres import Postgres
server = Postgres(Path(sys.argv[1]), "secret")
server.start()
server.stop()
print("started")
"""
STAND_IN = """
import sys
from pathlib import Path
from flaskapp_deploy.images import debian
debian.make(Path(sys.argv[1]) / "root", "trixie", "amd64", Path(sys.argv[1]) / "log", print, native=True)
"""
DEBIANS = re.compile(
    r"\bapt(?:-get|-cache)?\b|\bdpkg(?:-deb)?\b|debootstrap|nogroup|/usr/lib/(?:postgresql|cni)|adduser"
)
RELEASE_PATH = ["buildspec*.yml", "release.toml", "infra/*", "tests/*.py"]
RELEASE_PATH += [f"deploy/{part}" for part in ("*.sh", "flaskapp_deploy/*.py")]
RELEASE_PATH += [f"deploy/flaskapp_deploy/{room}/**/*.py" for room in ("release", "rehearsal", "up")]
CHECKS = [f"tests/{suite}/**/*.py" for suite in ("lint", "service", "chart", "infra")]
# Where such a word is right, because it is asked for before it is used, or is about the image.
ALLOWED = {
    "deploy/flaskapp_deploy/rehearsal/rehearse.py": {"apt-get"},  # runs on a developer's machine
    "deploy/flaskapp_deploy/release/sbom.py": {"dpkg"},  # of the image
    "deploy/flaskapp_deploy/checkout.py": {"apt-get"},
    "deploy/flaskapp_deploy/up/preconditions.py": {"apt-get"},
    "tests/__main__.py": {"apt-get"},
    "tests/amazon_linux.py": {*amazon_linux.ABSENT, "/usr/lib/cni", "/usr/lib/postgresql", "nogroup"},
    "tests/chart/postgresql_server.py": {"apt-get", "apt-cache", "dpkg-deb"},
    "tests/chart/test_postgresql_server.py": {"apt-get"},
    "deploy/flaskapp_deploy/up/postgres.py": {"nogroup"},  # says that it differs
}


@needs_namespace
def test_debians_things_are_absent(tmp_path: Path) -> None:
    code = "import grp, shutil, sys; print([shutil.which(name) for name in sys.argv[1:]]); grp.getgrnam('nogroup')"
    result = amazon_linux.python(tmp_path, code, *amazon_linux.ABSENT)
    assert result.stdout == f"{[None] * len(amazon_linux.ABSENT)}\n"
    assert "KeyError: \"getgrnam(): name not found: 'nogroup'\"" in result.stderr


@needs_namespace
def test_the_services_tests_have_a_database(tmp_path: Path) -> None:
    result = amazon_linux.python(tmp_path, START, str(tmp_path / "postgres"))
    assert result.stdout == "started\n", result.stderr


@needs_namespace
def test_the_charts_tests_of_its_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What needs Debian's PostgreSQL is left out, with the reason; the rest runs."""
    monkeypatch.setenv("PATH", f"{programs.binaries('chart')}:{os.environ['PATH']}")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--quiet",
        "-p",
        "no:cacheprovider",
        "tests/chart/test_postgresql_server.py",
    ]
    result = amazon_linux.run(tmp_path, *command, "-k", "tls or another_major_version or passwords_are_scram")
    assert result.returncode == 0, result.stdout
    assert "1 passed, 2 skipped" in result.stdout
    assert "there is no apt-get here" in result.stdout


@needs_namespace
def test_a_base_that_no_registry_serves(tmp_path: Path) -> None:
    """A stand-in can't be made there; the error says what is wrong rather than to install debootstrap."""
    result = amazon_linux.python(tmp_path, STAND_IN, str(tmp_path))
    assert "no registry answered for the base image, and a substitute needs debootstrap" in result.stderr
    assert "\n  let this machine reach the registry and try again" in result.stderr


def test_nothing_else_is_debians() -> None:
    """Words that name what Amazon Linux lacks, in what a release reads and runs there."""
    wrong = {}
    for path in sorted(path for pattern in RELEASE_PATH + CHECKS for path in ROOT.glob(pattern) if path.is_file()):
        name = str(path.relative_to(ROOT))
        words = set(DEBIANS.findall(path.read_text())) - ALLOWED.get(name, set())
        if words:
            wrong[name] = words
    assert not wrong


def fake(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!{os.path.realpath('/bin/sh')}\n{script}\n")
    (folder / name).chmod(0o755)


def test_dnf_installs_what_the_builder_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    fake(tmp_path, "dnf", f'echo "$@" >> {tmp_path}/dnf.log')
    packages.ensure(packages.IMAGES)
    assert (tmp_path / "dnf.log").read_text() == "install --assumeyes --quiet git runc\n"
    fake(tmp_path, "dnf", "echo 'Error: Unable to find a match: git' >&2; exit 1")
    with pytest.raises(DeployError, match="`dnf install git runc` failed; its last lines:\nError: Unable to find"):
        packages.ensure(packages.IMAGES)


def test_what_dnf_does_not_have_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    fake(tmp_path, "dnf", "exit 0")
    with pytest.raises(DeployError, match="no apt-get here: debootstrap, dpkg"):
        packages.ensure(packages.STAND_INS)


def test_a_python_that_is_too_old(tmp_path: Path) -> None:
    """Amazon Linux' own python3 is 3.9."""
    fake(tmp_path, "python3", "exit 1")
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path)}
    result = subprocess.run(["deploy/venv.sh"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 1
    assert "dnf install python3.13" in result.stderr
