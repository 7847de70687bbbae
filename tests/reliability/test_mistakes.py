"""What `make reliability` says when it can't begin: one line."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from flaskapp_deploy.cluster import lifecycle
from flaskapp_deploy.shell import DeployError
from reliability import __main__ as command
from tests.kubernetes import ROOT


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such-thing"], "there is no scenario 'no-such-thing'; `make reliability PART=--list` prints"),
        (["--mutations", "no-such-thing"], "no guard is removed for 'no-such-thing'; these are:"),
        (["drain"], "there is no instance 'absent'"),
    ],
)
def test_one_line(arguments: list[str], message: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "reliability", *arguments],
        cwd=ROOT,
        env={"INSTANCE": "absent", "PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ROOT}/src:{ROOT}/deploy:{ROOT}"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1, result.stderr


def test_one_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "existing", lambda name: SimpleNamespace(nodes=["n1"]))
    with pytest.raises(DeployError, match="'releases' has one node, and the scenarios need two"):
        command.prepare_environment("releases")


def test_too_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "existing", lambda name: SimpleNamespace(nodes=["n1", "n2"]))
    monkeypatch.setattr(command, "MEMORY", 2**50)
    with pytest.raises(DeployError, match="GiB of memory are free, and the scenarios need 1048576"):
        command.prepare_environment("releases")
