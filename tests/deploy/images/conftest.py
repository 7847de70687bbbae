"""Real builds: one buildkitd for each module."""

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flaskapp_deploy import shell
from flaskapp_deploy.images import buildkit, container
from flaskapp_deploy.images.buildkit import Builder
from flaskapp_deploy.images.image import Image, build_image
from flaskapp_deploy.images.oci import Layout

Build = Callable[..., Image]


class Container(container.Container):
    """A container of an archive, which can also be run to its end."""

    @classmethod
    def of(cls, archive: Path, root: Path) -> "Container":
        layout = root.with_name(f"{root.name}-layout")
        layout.mkdir()
        shell.run("tar", "-xf", archive, "-C", layout)
        return cls(Layout.read(layout), root)

    def run(self, *arguments: str, user: int = 10001) -> subprocess.CompletedProcess[str]:
        """Run a command (default: the image's own) and wait for its end."""
        with self.started(*arguments, user=user) as process:
            output, _ = process.communicate(timeout=60)
        return subprocess.CompletedProcess(arguments, process.returncode, output)


@pytest.fixture(scope="module")
def builder() -> Iterator[Builder]:
    if os.geteuid() != 0:
        pytest.skip("BuildKit and runc need root here")
    with buildkit.daemon() as running:
        yield running


@pytest.fixture(scope="module")
def space() -> Iterator[Path]:
    """Room for archives and unpacked images: too large to be kept after the tests."""
    with tempfile.TemporaryDirectory(prefix="flaskapp-test-") as directory:
        yield Path(directory)


@pytest.fixture(scope="module")
def build(builder: Builder, space: Path) -> Build:
    """`build_image` with this module's builder and room; `notes` gets what it reports."""

    def build(directory: Path, *, notes: list[str] | None = None, **options: Any) -> Image:
        output = space / f"{len(list(space.iterdir()))}.tar"
        reporting = builder if notes is None else replace(builder, progress=notes.append)
        return build_image(directory, output=output, builder=reporting, **options)

    return build
