"""Tool builds with real Go on a module of one small program."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flaskapp_deploy import programs, shell
from flaskapp_deploy.shell import DeployError

Module = Callable[..., str]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Module:
    """Make a group `own` with programs of these names, in a root and a cache of the test's own."""
    root = tmp_path / "tools"
    monkeypatch.setattr(programs, "ROOT", root)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def make(*programs: str, source: str = 'package main\nfunc main() { println("built") }\n') -> str:
        group = root / "own"
        for program in programs:
            (group / program).mkdir(parents=True)
            (group / program / "main.go").write_text(source)
        lines = [f"tool flaskapp/own/{program}" for program in programs]
        (group / "go.mod").write_text("module flaskapp/own\n\ngo 1.21\n\n" + "\n".join(lines) + "\n")
        return "own"

    return make


def test_groups_name_their_tools() -> None:
    assert {"kubernetes", "chart", "images"} <= set(programs.groups())
    tools = {tool.name: tool for tool in programs.tools_of("kubernetes")}
    assert {"kube-apiserver", "kubelet", "kubectl", "coredns", "metrics-server"} <= tools.keys()
    assert tools["kubelet"].version.startswith("1.")
    assert {"helm", "ct", "helm-unittest", "kubeconform", "helm-docs"} <= {t.name for t in programs.tools_of("chart")}


def test_build_once_and_use_again(module: Module, capfd: pytest.CaptureFixture[str]) -> None:
    directory = programs.binaries(module("first", "second"))
    assert subprocess.run([directory / "first"], capture_output=True, text=True, check=True).stderr == "built\n"
    assert "2 of 2  second" in capfd.readouterr().err
    assert programs.binaries("own") == directory
    assert capfd.readouterr().err == ""


def test_another_pin_is_another_build(module: Module) -> None:
    before = programs.binaries(module("first"))
    with (programs.ROOT / "own/go.mod").open("a") as file:
        file.write("// another pin\n")
    assert programs.binaries("own") != before


def test_two_builds_at_once(module: Module) -> None:
    module("first", "second")
    with ThreadPoolExecutor(2) as pool:
        directories = set(pool.map(programs.binaries, ["own", "own"]))
    [directory] = directories
    assert sorted(path.name for path in directory.iterdir()) == ["complete", "first", "second"]


def test_an_interrupted_build_goes_on(module: Module, tmp_path: Path) -> None:
    module("first", "second")
    program = textwrap.dedent(f"""
        import pathlib
        from flaskapp_deploy import programs
        programs.ROOT = pathlib.Path({str(programs.ROOT)!r})
        programs.binaries("own")
    """)
    child = subprocess.Popen(
        [sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert child.stderr is not None
    assert any("2 of 2" in line for line in child.stderr)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    child.stderr.close()
    time.sleep(0.1)
    directory = programs.binaries("own")
    assert (directory / "first").exists()
    assert (directory / "second").exists()
    assert (directory / "complete").exists()


def test_a_fitting_program_on_the_path_is_used(module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module("first")
    monkeypatch.setattr(
        programs, "tools_of", lambda group: [programs.Tool("example.com/first", "example.com", "1.2.3")]
    )
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    program = tmp_path / "first"
    program.write_text("#!/bin/sh\necho first v1.2.3\n")
    program.chmod(0o755)
    assert (programs.binaries("own") / "first").resolve() == program

    program.write_text("#!/bin/sh\necho first v1.2.30\n")
    shutil.rmtree(shell.cache())
    with pytest.raises(DeployError, match="go build"):  # it is not the version, and example.com has none
        programs.binaries("own")


def test_a_failing_build_says_why(module: Module) -> None:
    module("broken", source="package main\nfunc main() { missing() }\n")
    with pytest.raises(DeployError, match="undefined: missing"):
        programs.binaries("own")
    assert not list(shell.cache().rglob("broken"))


def test_no_go(module: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    module("first")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(DeployError, match=r"install Go 1\.21 or newer"):
        programs.binaries("own")


def test_a_go_that_is_too_old(module: Module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Debian 12's own; a command of that name stands for it, since one Go only is here."""
    module("first")
    go = tmp_path / "bin/go"
    go.parent.mkdir()
    go.write_text('#!/bin/sh\n[ "$1 $2" = "env GOVERSION" ] && echo go1.19.8 || exit 2\n')
    go.chmod(0o755)
    monkeypatch.setenv("PATH", f"{go.parent}:{os.environ['PATH']}")
    with pytest.raises(DeployError, match=r"is 1\.19\.8; put Go 1\.21 or newer"):
        programs.binaries("own")


def test_an_unknown_group() -> None:
    with pytest.raises(DeployError, match="the groups are"):
        programs.binaries("nothing")
