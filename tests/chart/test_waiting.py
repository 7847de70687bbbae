"""What pods do until the schema is there, run as they run it."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.chart.render import WITHOUT_CLUSTER, one, render


@pytest.fixture(scope="module")
def waiting() -> list[str]:
    """The command of the init container up to the one that it repeats."""
    deployment: dict[str, Any] = one(render("flaskapp", WITHOUT_CLUSTER), "Deployment")
    command = deployment["spec"]["template"]["spec"]["initContainers"][0]["command"]
    assert command[3:] == ["python", "-m", "flaskapp", "db", "wait"]
    return [sys.executable, *command[1:3]]


def test_a_check_is_repeated_until_it_succeeds(waiting: list[str], tmp_path: Path) -> None:
    flag = tmp_path / "schema"
    with subprocess.Popen([*waiting, "test", "-e", str(flag)]) as process:
        time.sleep(1)
        assert process.poll() is None
        flag.touch()
        assert process.wait(timeout=10) == 0


def test_a_pod_that_waits_ends_at_once(waiting: list[str]) -> None:
    with subprocess.Popen([*waiting, "false"]) as process:
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=2) == 128 + signal.SIGTERM
