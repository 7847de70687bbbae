"""A registry like ECR, a signing key, and a checkout of the last commit."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from flaskapp_deploy.rehearsal import registry
from flaskapp_deploy.rehearsal.registry import Registry
from flaskapp_deploy.release import cosign
from tests.deploy.release import steps
from tests.deploy.release.steps import Run


@pytest.fixture(scope="module")
def ecr(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry.serve(tmp_path_factory.mktemp("registry")) as running:
        running.create("flaskapp")
        running.create("charts/flaskapp", movable=())
        yield running


@pytest.fixture(scope="session")
def signing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cosign.key and cosign.pub."""
    folder = tmp_path_factory.mktemp("signing")
    cosign.make_key(folder, steps.PASSWORD)
    return folder


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return steps.clone(tmp_path / "checkout")


@pytest.fixture
def run(checkout: Path, ecr: Registry, signing: Path, tmp_path: Path) -> Run:
    return steps.runner(checkout, ecr, signing, tmp_path)
