"""Helm 3 renders the charts as Helm 4 does."""

import subprocess

import pytest
import yaml

from flaskapp_deploy import programs
from tests.chart.render import RELEASE_VALUES, ROOT, load, render


@pytest.fixture(scope="module")
def helm3() -> str:
    return str(programs.binaries("helm3") / "helm")


@pytest.mark.parametrize("name", RELEASE_VALUES)
def test_the_same_objects(helm3: str, name: str) -> None:
    values = RELEASE_VALUES[name]
    command = [helm3, "template", "web", "charts/flaskapp", "--namespace", "shop", "--values", "-"]
    result = subprocess.run(
        command, cwd=ROOT, input=yaml.safe_dump(values), capture_output=True, text=True, check=True, timeout=60
    )
    objects = load(result.stdout)
    assert sorted(objects, key=str) == sorted(render("flaskapp", values), key=str)


def test_the_same_refusal(helm3: str) -> None:
    command = [helm3, "template", "web", "charts/flaskapp", "--set", "replcias=3"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode != 0
    assert "replcias" in result.stderr
