"""The image of this repository's own service, for this machine and for arm64."""

import os
import shutil
from pathlib import Path

import pytest

from flaskapp_deploy.images.baseimages import DOCKERFILE, architecture
from flaskapp_deploy.images.container import get
from flaskapp_deploy.images.image import Image
from flaskapp_deploy.images.oci import Layout
from flaskapp_deploy.shell import free_port
from tests.deploy.images.conftest import Build, Container
from tests.deploy.images.test_application import files

# A database that isn't there.
SETTINGS = {
    "DB_HOST": "127.0.0.1",
    "DB_PORT": "1",
    "DB_NAME": "ledger",
    "DB_USERNAME": "ledger",
    "DB_PASSWORD": "secret",
}


@pytest.fixture(scope="module")
def image(build: Build) -> Image:
    return build(DOCKERFILE.parent, name="flaskapp")


@pytest.fixture(scope="module")
def container(image: Image, space: Path) -> Container:
    return Container.of(image.archive, space / "service")


@pytest.mark.parametrize("machine", ["amd64", "arm64"])
def test_is_small(build: Build, machine: str) -> None:
    image = build(DOCKERFILE.parent, name="flaskapp", platform=f"linux/{machine}")
    assert sum(size for _, size in image.own_layers) < 18 * 2**20


def test_holds_the_code_and_nothing_else_of_the_repository(image: Image) -> None:
    names = files(image, 1)
    tops = {Path(name).parts[1] for name in names}
    assert tops <= {"flaskapp", "gunicorn.conf.py", "__pycache__"}


def test_command_line(container: Container) -> None:
    result = container.run("python", "-m", "flaskapp", "--help")
    assert result.returncode == 0, result.stdout
    assert "db" in result.stdout


def test_answers_liveness_without_a_database(container: Container) -> None:
    port = str(free_port())
    with container.started(environment=SETTINGS | {"PORT": port}):
        get(f"http://127.0.0.1:{port}/livez")


def test_a_missing_setting_ends_it_with_its_name(container: Container) -> None:
    result = container.run()
    assert result.returncode != 0
    assert "DB_HOST" in result.stdout


@pytest.mark.skipif(not os.environ.get("LONG"), reason="long form: LONG=1")
@pytest.mark.skipif(architecture() == "arm64", reason="this machine runs arm64 itself")
def test_arm64_serves_under_emulation(build: Build, space: Path) -> None:
    """Assembled here without emulation, then run by qemu, with nothing registered in the kernel."""
    emulator = shutil.which("qemu-aarch64-static")
    assert emulator, "qemu-aarch64-static is missing: apt-get install qemu-user-static"
    layout = space / "arm64-layout"
    build(DOCKERFILE.parent, name="flaskapp", platform="linux/arm64", layout=layout)
    container = Container(Layout.read(layout), space / "arm64", Path(emulator))
    for library in (container.root / "deps").rglob("*.so*"):
        assert library.read_bytes()[18:20] == b"\xb7\0", f"{library} is not for aarch64"
    port = str(free_port())
    with container.started(environment=SETTINGS | {"PORT": port}):
        get(f"http://127.0.0.1:{port}/livez", seconds=120)
        assert b"version" in get(f"http://127.0.0.1:{port}/version", seconds=20)
    result = container.run("python", "-c", "import platform; print(platform.machine())")
    assert result.stdout == "aarch64\n"
