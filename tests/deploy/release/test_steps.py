"""The order of a release: each step once, the record whatever happens, and what a check can't see."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from flaskapp_deploy.kubernetes import Cluster
from flaskapp_deploy.release import check, config, record, steps
from flaskapp_deploy.shell import DeployError

CONFIG = config.load()


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the steps that ran, with nothing done by them; FAILS, if it is set, names one that fails."""
    names: list[str] = []
    order = steps.steps

    def step(name: str) -> None:
        names.append(name)
        if name == os.environ.get("FAILS"):
            raise DeployError("it is broken")
        if name == os.environ.get("STOPPED"):
            os.kill(os.getpid(), signal.SIGTERM)

    def fakes(config: config.ReleaseConfig, cluster: Cluster, to_push: bool) -> list[steps.Step]:
        return [(name, partial(step, name)) for name, _ in order(config, cluster, to_push)]

    monkeypatch.setattr(steps, "steps", fakes)
    monkeypatch.setattr(steps, "preflight", lambda *_: step("preflight"))
    monkeypatch.setattr(record, "record", lambda *_: step("record"))
    handler = signal.getsignal(signal.SIGTERM)
    yield names
    signal.signal(signal.SIGTERM, handler)


def test_their_order(ran: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    steps.run(CONFIG)
    before = ["version", "preflight", "check", "build", "scan"]
    assert ran == [*before, "push", "scan --pushed", "package", "verify", "release", "record"]
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.endswith(" begins")] == [f"step {name} begins" for name in ran]
    assert sum(" took " in line for line in lines) == len(ran)


def test_without_a_push_nothing_is_published_or_recorded(ran: list[str]) -> None:
    steps.run(CONFIG, to_push=False)
    assert ran == ["version", "check", "build", "scan"]


@pytest.mark.parametrize("name", ["check", "scan --pushed", "release"])
def test_a_step_that_fails_is_named_and_recorded(ran: list[str], monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("FAILS", name)
    with pytest.raises(DeployError, match=f"^step {name} failed: it is broken$"):
        steps.run(CONFIG)
    assert ran[-2:] == [name, "record"]


def test_without_a_version_nothing_is_recorded(ran: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What release.json says then is of the release before."""
    monkeypatch.setenv("FAILS", "version")
    with pytest.raises(DeployError, match="step version failed"):
        steps.run(CONFIG)
    assert ran == ["version"]


def test_a_release_that_is_stopped_is_recorded(ran: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOPPED", "release")
    with pytest.raises(KeyboardInterrupt):
        steps.run(CONFIG)
    assert ran[-2:] == ["release", "record"]


def test_a_check_has_no_login_and_no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LEDGER_TOKEN", "COSIGN_PASSWORD", "DOCKER_CONFIG", "KUBECONFIG"):
        monkeypatch.setenv(name, "of-the-release")
    check.run(replace(CONFIG, checks=(f"env > {tmp_path}/env; ls -A $DOCKER_CONFIG > {tmp_path}/ls; true",)))
    assert "of-the-release" not in (tmp_path / "env").read_text()
    assert (tmp_path / "ls").read_text() == ""
