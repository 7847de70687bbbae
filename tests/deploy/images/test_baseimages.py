"""The stand-ins of the base images. Where the registries answer, there are none to test."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flaskapp_deploy import programs
from flaskapp_deploy.images import baseimages, debian, registry
from flaskapp_deploy.images.baseimages import DOCKERFILE
from flaskapp_deploy.images.buildkit import Builder, BuildError
from flaskapp_deploy.images.image import chart_archives
from flaskapp_deploy.resources import ROOT
from tests.deploy.images.conftest import Build, Container


@pytest.fixture(scope="module")
def postgres(builder: Builder, space: Path) -> Container:
    return stand_in(builder, baseimages.POSTGRES, space / "postgres")


@pytest.fixture(scope="module")
def busybox(builder: Builder, space: Path) -> Container:
    return stand_in(builder, baseimages.BUSYBOX, space / "busybox")


def stand_in(builder: Builder, reference: str, folder: Path) -> Container:
    archives = chart_archives(builder)
    if reference not in archives:
        pytest.skip("the registry answers: there is no stand-in")
    return Container.of(archives[reference], folder)


def test_the_tools_are_where_the_official_image_has_them(busybox: Container) -> None:
    script = (
        "cp /bin/busybox /tmp && /tmp/busybox echo copied; for tool in sed nslookup wget head; do ls /bin/$tool; done"
    )
    result = busybox.run("/bin/busybox", "sh", "-c", script, user=10001)
    assert result.stdout.split() == ["copied", "/bin/sed", "/bin/nslookup", "/bin/wget", "/bin/head"]


def test_every_program_starts(postgres: Container) -> None:
    programs = sorted(path.name for path in (postgres.root / "usr/lib/postgresql/18/bin").iterdir())
    assert {"initdb", "pg_dump", "pg_isready", "postgres", "psql"} <= set(programs)
    result = postgres.run(
        "sh", "-c", f"set -e; for program in {' '.join(programs)}; do $program --version; done", user=999
    )
    assert result.returncode == 0, result.stdout
    assert len(result.stdout.splitlines()) == len(programs)
    assert all(" 18." in line for line in result.stdout.splitlines())


def test_a_database_works(postgres: Container) -> None:
    script = """
        set -e
        initdb --pgdata=/tmp/data --locale=C.UTF-8 --auth=scram-sha-256 --pwfile=/etc/hostname >/dev/null
        pg_ctl --pgdata=/tmp/data --log=/tmp/log --wait --options='-c listen_addresses= -k /tmp' start >/dev/null
        PGPASSWORD=secret psql --host=/tmp --username=postgres --no-align --tuples-only postgres \
          --command "SELECT uuidv7() IS NOT NULL, upper('ä'), 'Asia/Tokyo' IN (SELECT name FROM pg_timezone_names)"
        pg_ctl --pgdata=/tmp/data --wait stop >/dev/null
    """
    (postgres.root / "etc/hostname").write_text("secret\n")
    result = postgres.run("sh", "-c", script, user=999)
    assert result.stdout == "t|Ä|t\n"


def test_an_arbitrary_user_has_a_name(postgres: Container) -> None:
    script = (ROOT / "charts/postgresql/files/user.sh").read_text() + "\nid -un; exec initdb --pgdata=/tmp/arbitrary"
    result = postgres.run("bash", "-c", script, user=1000620000)
    assert result.stdout.startswith("postgres\n"), result.stdout
    assert "Success" in result.stdout


def test_user_and_folders_are_the_official_images(postgres: Container) -> None:
    result = postgres.run("sh", "-c", "id; stat --format '%U %a %n' /var/lib/postgresql /var/run/postgresql", user=999)
    assert result.stdout.splitlines() == [
        "uid=999(postgres) gid=999(postgres) groups=999(postgres)",
        "postgres 755 /var/lib/postgresql",
        "postgres 3777 /var/run/postgresql",
    ]


def test_holds_no_mirror(postgres: Container) -> None:
    for path in [*(postgres.root / "etc/apt").rglob("*")]:
        assert "://" not in (path.read_text(errors="ignore") if path.is_file() else ""), path


def test_is_made_once(builder: Builder) -> None:
    first, second = baseimages.python(builder), baseimages.python(builder)
    assert first == second


def test_half_made_ones_are_not_used(builder: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if registry.digest(baseimages.PYTHON):
        pytest.skip("the registry answers: there is no stand-in")

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(debian, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        baseimages.python(builder)
    left = subprocess.run(["find", str(tmp_path), "-type", "f"], capture_output=True, text=True).stdout.split()
    assert [Path(path).suffix for path in left] == [".lock"]


def test_a_killed_build_leaves_nothing_running(tmp_path: Path) -> None:
    if registry.digest(baseimages.PYTHON):
        pytest.skip("the registry answers: there is no stand-in")
    built = programs.binaries("images")
    (tmp_path / "flaskapp/tools").mkdir(parents=True)
    (tmp_path / "flaskapp/tools" / built.name).symlink_to(built)
    command = [sys.executable, "-m", "flaskapp_deploy", "bases"]
    with (
        tempfile.TemporaryDirectory() as temporary,
        subprocess.Popen(
            command,
            env=os.environ | {"XDG_CACHE_HOME": str(tmp_path), "TMPDIR": temporary},
            stderr=subprocess.DEVNULL,
        ) as process,
    ):
        wait_until(lambda: bool(list(tmp_path.glob("flaskapp/baseimages/.python3*/root/debootstrap"))), 30)
        process.kill()
        wait_until(lambda: not running(str(tmp_path)), 30)


@pytest.mark.parametrize("declared", ["3.11", ""])
def test_another_python(build: Build, space: Path, tmp_path: Path, declared: str) -> None:
    """By name, or by the application's .python-version. Debian's older release has it."""
    shutil.copytree(DOCKERFILE.parent / "examples/hello", tmp_path, dirs_exist_ok=True)
    if not declared:
        (tmp_path / ".python-version").write_text("3.11.9\n")
    image = build(tmp_path, name="older", python=declared)
    assert image.base.reference.endswith("/python:3.11-slim-trixie")
    container = Container.of(image.archive, space / f"older-{declared}")
    result = container.run("python", "-c", "import app, sys; print(*sys.version_info[:2])")
    assert result.stdout == "3 11\n"


def test_a_python_that_debian_has_not(build: Build) -> None:
    hello = DOCKERFILE.parent / "examples/hello"
    if registry.digest(baseimages.PYTHON):
        pytest.skip("the registry answers: it has every Python")
    with pytest.raises(BuildError, match=r"no registry answers for \S+/python:3\.9-slim-trixie, and Debian's packages"):
        build(hello, name="none", python="3.9")


def test_a_version_that_is_none(build: Build) -> None:
    with pytest.raises(BuildError, match=r"'python3\.11' is no version of Python 3: name one such as 3\.13"):
        build(DOCKERFILE.parent / "examples/hello", name="none", python="python3.11")


def running(words: str) -> str:
    """Processes whose command line holds `words`."""
    return subprocess.run(["pgrep", "--list-full", "--full", words], capture_output=True, text=True).stdout


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.1)
