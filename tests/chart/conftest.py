"""Charts rendered once for all tests of this folder."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.chart.render import ROOT


@pytest.fixture(scope="session", autouse=True)
def _dependency() -> None:
    """`charts/flaskapp/charts` holds the subchart as it is now, not as it was packaged last time."""
    if shutil.which("helm") is None:
        pytest.fail("helm is not on the PATH: `make test SUITE=chart` puts it there")
    command = ["helm", "dependency", "build", "--skip-refresh", "charts/flaskapp"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
