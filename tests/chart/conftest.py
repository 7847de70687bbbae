"""Fixtures of the chart's tests."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.chart.render import ROOT


@pytest.fixture(scope="session", autouse=True)
def _dependency() -> None:
    """Package the subchart as it is now into `charts/flaskapp/charts`."""
    if shutil.which("helm") is None:
        pytest.fail("helm is not on the PATH: `make test SUITE=chart` puts it there")
    command = ["helm", "dependency", "build", "--skip-refresh", "charts/flaskapp"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
