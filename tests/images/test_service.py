"""The image of this repository's own service."""

from pathlib import Path

import pytest

from localcluster.baseimages import DOCKERFILE
from localcluster.image import Image
from tests.images.conftest import Build
from tests.images.container import Container, get
from tests.images.test_application import files, free_port


@pytest.fixture(scope="module")
def image(build: Build) -> Image:
    return build(DOCKERFILE.parent, name="flaskapp")


@pytest.fixture(scope="module")
def container(image: Image, space: Path) -> Container:
    return Container(image.archive, space / "service")


def test_is_small(image: Image) -> None:
    assert sum(size for _, size in image.own_layers) < 18 * 2**20


def test_holds_the_code_and_nothing_else_of_the_repository(image: Image) -> None:
    names = files(image, 1)
    tops = {Path(name).parts[1] for name in names}
    assert tops <= {"flaskapp", "gunicorn.conf.py", "__pycache__"}


def test_command_line(container: Container) -> None:
    done = container.run("python", "-m", "flaskapp", "--help")
    assert done.returncode == 0, done.stdout
    assert "db" in done.stdout


def test_answers_liveness_without_a_database(container: Container) -> None:
    port = free_port()
    settings = {"PORT": port, "DB_HOST": "127.0.0.1", "DB_PORT": free_port(), "DB_NAME": "a", "DB_USERNAME": "a"}
    with container.started(environment=settings | {"DB_PASSWORD": "a", "METRICS_PORT": free_port()}):
        get(f"http://127.0.0.1:{port}/livez")


def test_a_missing_setting_ends_it_with_its_name(container: Container) -> None:
    done = container.run()
    assert done.returncode != 0
    assert "DB_HOST" in done.stdout
