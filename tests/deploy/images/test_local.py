"""The image as docs/local.md builds it: by Docker where its engine answers, otherwise by BuildKit."""

import json
import subprocess

import pytest
import yaml

from tests import pages
from tests.pages import ROOT


def docker_answers() -> bool:
    try:
        return subprocess.run(["docker", "version"], capture_output=True, timeout=20).returncode == 0
    except FileNotFoundError:
        return False


def test_the_image_is_built(capsys: pytest.CaptureFixture[str]) -> None:
    by_docker, by_buildkit = pages.blocks("local.md", "The image")
    version = yaml.safe_load((ROOT / "charts/flaskapp/Chart.yaml").read_text())["appVersion"]
    assert f"localhost/flaskapp:{version} " in by_docker, "what `make manifests` names"
    with capsys.disabled():
        if docker_answers():
            print("\ndocs/local.md: built by docker")
            pages.run(by_docker, timeout=600)
            return
        print("\ndocs/local.md: no Docker engine answers, so BuildKit's line stands in for docker build")
    built = json.loads(pages.run(by_buildkit, timeout=600).stdout)
    assert built["archive"] == "build/flaskapp.tar"
    assert (ROOT / built["archive"]).stat().st_size > 2**20
