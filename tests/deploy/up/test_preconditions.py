"""What `up` refuses before it makes anything, one line each with the remedy."""

import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from flaskapp_deploy import machine
from flaskapp_deploy.release import config
from flaskapp_deploy.resources import CHART, ROOT
from flaskapp_deploy.shell import DeployError
from flaskapp_deploy.up import preconditions, target
from flaskapp_deploy.up.target import Local

HELLO = ROOT / "examples/hello"
HERE = Local("nobodys", "docker is not installed")


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("replica: 2", ["replica is unknown, did you mean replicas?"]),
        ("image: {tags: x}", ["image.tags is unknown, did you mean tag?"]),
        ("zzz: 1", ["zzz is unknown"]),
        ("workers: many", ["workers: 'many' is not of type 'integer'"]),
        ("replicaCount: 3", ["replicaCount has another name here: replicas"]),
        (
            "postgresql: {primary: {persistnce: {}}}",
            ["postgresql.primary.persistnce is unknown, did you mean persistence?"],
        ),
        ("replica: 2\nworker: 1", ["replica is unknown, did you mean replicas?", "worker is unknown"]),
    ],
)
def test_values_that_the_chart_does_not_know(tmp_path: Path, text: str, lines: list[str]) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(text)
    with pytest.raises(DeployError) as error:
        preconditions.check_values(file, CHART)
    first, *others = error.value.message.splitlines()
    assert first == f"VALUES={file} does not fit the chart flaskapp:"
    assert len(others) == len(lines)
    for line in lines:
        assert any(other.strip().startswith(line) for other in others), others


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1\nb: 2", "is not YAML: while parsing a flow sequence"),
        (b"\xff\xfe\x00", "is not YAML: "),
        (b"- a\n", "holds a list; a values file has lines such as `replicas: 2`"),
    ],
)
def test_values_that_are_no_values(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "values.yaml"
    file.write_bytes(content)
    with pytest.raises(DeployError) as error:
        preconditions.check_values(file, CHART)
    assert error.value.message.startswith(f"VALUES={file} {message}")
    assert "\n" not in error.value.message


@pytest.mark.parametrize("path", ["environments/*.yaml", "examples/*/values.yaml", "charts/flaskapp/values.yaml"])
def test_every_values_file_of_this_repository_fits(path: str) -> None:
    files = list(ROOT.glob(path))
    assert files
    for file in files:
        preconditions.check_values(file, CHART)


def test_null_takes_out_what_another_file_has(tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text("env: {A: null}\nresources: null\nworkers: null\n")
    preconditions.check_values(file, CHART)


def test_a_directory_without_requirements() -> None:
    with pytest.raises(DeployError, match=r"APP=\S*/docs has no requirements.txt"):
        preconditions.check_application(ROOT / "docs")
    preconditions.check_application(HELLO)
    preconditions.check_application(ROOT)


def test_a_port_that_is_taken() -> None:
    release = config.project().with_application(HELLO)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        with pytest.raises(DeployError) as error:
            preconditions.check_port(port, release, HERE)
    assert error.value.message == f"port {port} on 127.0.0.1 is in use; choose another one with PORT=…"
    preconditions.check_port(port, release, HERE)


def test_a_disk_and_a_memory_that_are_small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    preconditions.check_disk()
    preconditions.check_memory("nobodys")
    monkeypatch.setattr(preconditions, "DISK", 10**15)
    with pytest.raises(DeployError, match=r"has \S+ GiB of free disk, and the local cluster needs 931323"):
        preconditions.check_disk()
    monkeypatch.setattr(preconditions, "MEMORY", 10**15)
    with pytest.raises(DeployError, match=r"GiB of memory are available, and the local cluster needs 931322\.6"):
        preconditions.check_memory("nobodys")
    (tmp_path / "meminfo").write_text("MemTotal:  24000 kB\nMemAvailable:    2048 kB\n")
    assert machine.available_memory(tmp_path / "meminfo") == 2 * 2**20


def test_a_first_start_needs_more_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(preconditions, "FIRST_DISK", 10**15)
    with pytest.raises(DeployError, match="set XDG_CACHE_HOME to a directory on another disk"):
        preconditions.check_disk()
    (tmp_path / "flaskapp/tools/kubernetes-1").mkdir(parents=True)
    (tmp_path / "flaskapp/tools/kubernetes-1/complete").touch()
    preconditions.check_disk()


@pytest.mark.parametrize(("manager", "package"), [("dnf", "iproute "), ("pacman", "cni-plugins"), ("", "packages, or")])
def test_another_distribution_is_told_its_packages(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, manager: str, package: str
) -> None:
    if manager:
        (tmp_path / manager).symlink_to("/bin/true")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeployError, match="the local cluster needs programs that are not here: etcd, ") as error:
        preconditions.check_packages()
    assert package in error.value.message


def test_a_context_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"contexts: [{{name: {name}}}]")
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/one:{tmp_path}/two:{tmp_path}/absent")
    assert target.contexts() == ["one", "two"]
    with pytest.raises(DeployError) as error:
        target.choose("to", "default")
    assert error.value.message == (
        "KUBE_CONTEXT=to is not in your kubeconfig, did you mean two?\n  the contexts are: one, two"
    )
    (tmp_path / "one").write_text("a: [")
    with pytest.raises(DeployError, match=r"the kubeconfig \S*/one is not YAML"):
        target.choose("two", "default")


def test_they_come_before_anything_is_made(tmp_path: Path) -> None:
    """In the command: no cluster, no cache, no build."""
    (tmp_path / "values.yaml").write_text("replica: 2")
    variables = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "XDG_STATE_HOME": str(tmp_path / "state")}
    command = [sys.executable, "-m", "flaskapp_deploy", "up", "--app", str(HELLO), "--instance", "nobodys"]
    result = subprocess.run(
        [*command, "--values", str(tmp_path / "values.yaml")],
        cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert result.stderr.startswith(f"error: VALUES={tmp_path}/values.yaml does not fit the chart flaskapp:\n")
    assert result.stderr.count("\n") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["values.yaml"]


def test_check_is_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each of them is asked, in an order from the cheapest to the dearest."""
    release = replace(config.project().with_application(HELLO), values=(ROOT / "environments/dev.yaml",))
    preconditions.check(release, HERE, None)
    monkeypatch.setenv("TIMEOUT_FACTOR", "slow")
    with pytest.raises(DeployError, match="TIMEOUT_FACTOR='slow' is not a number"):
        preconditions.check(release, HERE, None)
    monkeypatch.delenv("TIMEOUT_FACTOR")
    with pytest.raises(DeployError, match="there is no directory"):
        preconditions.check(replace(release, application=tmp_path / "absent"), HERE, None)
    shutil.copytree(HELLO, tmp_path / "web")
    (tmp_path / "web/requirements.txt").unlink()
    with pytest.raises(DeployError, match=r"has no requirements.txt"):
        preconditions.check(replace(release, application=tmp_path / "web"), HERE, None)
