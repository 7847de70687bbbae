"""An image built where a registry answers, on a machine that can make no stand-in: Amazon Linux has no debootstrap."""

from pathlib import Path

import pytest

from flaskapp_deploy.images import baseimages, buildkit
from flaskapp_deploy.images.baseimages import DOCKERFILE, PYTHON
from flaskapp_deploy.rehearsal.registry import distribution
from tests import amazon_linux

BUILD = """
import sys
from pathlib import Path
from flaskapp_deploy.images import baseimages, image
baseimages.PYTHON = sys.argv[1]
built = image.build_image(Path(sys.argv[2]), name="hello", output=Path(sys.argv[3]))
print(built.base.stand_in, built.base.digest)
"""


@pytest.mark.skipif(not amazon_linux.can_run(), reason="BuildKit and runc need root here")
def test_debootstrap_is_asked_for_only_where_no_registry_answers(space: Path) -> None:
    (space / "registry").mkdir()
    (space / "copy").mkdir()
    (space / "copy/Dockerfile").write_text(f"FROM {PYTHON}\n")
    with distribution(space / "registry") as host:
        reference = f"{host}/python:3.13-slim-trixie"
        with buildkit.daemon() as builder:
            base = baseimages.python(builder)
            bases = {PYTHON: base.layout} if base.layout else {}
            pushed = builder.build(space / "copy", space / "pushed", what="pushing", bases=bases, push=reference)
        hello = str(DOCKERFILE.parent / "examples/hello")
        result = amazon_linux.python(space, BUILD, reference, hello, str(space / "hello.tar"))
        assert result.stdout == f"False {pushed.digest}\n", result.stderr
