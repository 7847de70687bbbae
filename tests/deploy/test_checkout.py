"""Before anything is installed: words that can't work say so at once, and the environment's errors are seen whole."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flaskapp_deploy import settings

ROOT = Path(__file__).resolve().parents[2]
# What a machine has that has never seen this repository; macOS has no flock, and its readlink no -f.
PROGRAMS = ["bash", "cat", "dirname", "echo", "env", "expand", "id", "make", "pwd", "python3", "sed", "sh", "uname"]


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """Variables of a fresh machine: an empty cache, and a PATH without flock, readlink, apt-get or docker."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in PROGRAMS:
        path = f"{sys.base_prefix}/bin/python3" if name == "python3" else shutil.which(name)
        if path:
            (programs / name).symlink_to(path)
    return {"PATH": str(programs), "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}


def uname(variables: dict[str, str], answer: str) -> None:
    """Let uname answer otherwise."""
    program = Path(variables["PATH"]) / "uname"
    program.unlink()
    program.write_text(f"#!/bin/sh\necho {answer}\n")
    program.chmod(0o755)


def refused(variables: dict[str, str], *command: str, within: float = 30) -> str:
    """What a command prints that fails at once, with nothing on standard output."""
    started = time.monotonic()
    result = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=300)
    assert time.monotonic() - started < within
    assert result.returncode != 0
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return re.sub(r"^make: .*\n", "", result.stderr, flags=re.MULTILINE)


def test_another_system_is_told_so_at_once(machine: dict[str, str]) -> None:
    uname(machine, "Darwin")
    assert refused(machine, "make", "up") == (
        "error: the local cluster needs Linux, and this is Darwin;"
        " start Docker (kind is used then) or set KUBE_CONTEXT=…\n  docker is not installed\n"
    )
    assert not Path(machine["XDG_CACHE_HOME"]).exists()
    uname(machine, "MINGW64_NT-10.0")
    assert "WSL2" in refused(machine, "make", "up")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_who_is_not_root_is_told_so_at_once(machine: dict[str, str], tmp_path: Path) -> None:
    command = [str(shutil.which("setpriv")), "--reuid=65534", "--clear-groups", "make", "up", "PYTHON=/usr/bin/python3"]
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(folder.stat().st_mode | 0o055)
    assert refused(machine, *command).startswith(
        "error: the local cluster needs root; run `sudo make up`, start Docker"
    )


def test_an_engine_that_does_not_answer_is_named(machine: dict[str, str]) -> None:
    docker = Path(machine["PATH"]) / "docker"
    docker.write_text("#!/bin/sh\necho 'permission denied on /var/run/docker.sock' >&2; exit 1\n")
    docker.chmod(0o755)
    uname(machine, "Darwin")
    reason = "docker is installed, but its engine does not answer: permission denied on /var/run/docker.sock"
    assert reason in refused(machine, "make", "up")
    docker.write_text(f"#!/bin/sh\nexec {shutil.which('sleep')} 60\n")
    assert "docker is installed, but its engine did not answer within 5 s" in refused(machine, "make", "up")


@pytest.mark.parametrize(
    ("misspelled", "message"),
    [
        ("AP=examples/hello", "error: AP= is unknown to make, did you mean APP?"),
        ("VALUE=a.yaml", "error: VALUE= is unknown to make, did you mean VALUES?"),
        ("COLOR=1", "error: COLOR= is unknown to make\n"),
    ],
)
def test_a_misspelled_name(machine: dict[str, str], misspelled: str, message: str) -> None:
    for word in ("up", "down", "test"):
        assert refused(machine, "make", word, misspelled).startswith(message)


def test_every_name_of_the_documents_and_programs_can_be_given() -> None:
    documents = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md")]
    lines = [line for path in documents for line in re.findall(r"\bmake [a-z-]+ [^`\n]*", path.read_text())]
    names = {name for line in lines for name in re.findall(r"\b([A-Z_]+)=", line)}
    assert len(names) > 5
    sources = [*ROOT.glob("deploy/**/*.py"), *ROOT.glob("tests/*.py")]
    code = "\n".join(path.read_text() for path in sources)
    names |= set(re.findall(r'(?:envvar=|environ\.get\()"([A-Z_]+)"', code))
    others = ("CODEBUILD_", "MAKE_", "REGISTRY", "SHELL", "SSL_", "USER")  # of the shell, and of the pipeline's machine
    assert settings.problem(sorted(name for name in names if not name.startswith(others))) == ""


# --- the environment's own errors ------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 60 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk(machine: dict[str, str], small_disk: Path) -> None:
    message = refused(machine | {"XDG_CACHE_HOME": str(small_disk)}, "make", "run")
    assert message.startswith(
        f"error: {small_disk}/flaskapp has 60 MiB of free disk, and the Python packages take 700\n"
    )
    assert "set XDG_CACHE_HOME" in message


def test_a_disk_that_fills_up_meanwhile(machine: dict[str, str], small_disk: Path) -> None:
    code = "from flaskapp_deploy import checkout; checkout.MEGABYTES = 0; checkout.main([])"
    variables = machine | {"XDG_CACHE_HOME": str(small_disk), "PYTHONPATH": str(ROOT / "deploy"), "TMPDIR": "/tmp"}
    result = subprocess.run(["python3", "-c", code], env=variables, capture_output=True, text=True, timeout=300)
    assert "No space left on device" in result.stderr
    assert "the Python packages can't be installed; pip's reason is above" in result.stderr
    assert not list(small_disk.glob("flaskapp/venv-*/complete"))


def test_no_network(machine: dict[str, str]) -> None:
    index = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0", "PIP_NO_CACHE_DIR": "1"}
    message = refused(machine | index, "make", "run", within=120)
    assert "ERROR: Could not find a version that satisfies the requirement" in message
    assert message.endswith(
        "error: the Python packages can't be installed; pip's reason is above\n"
        "  where it found no version of a package at all, its index can't be reached: see `pip config list`\n"
    )


def test_a_python_without_ensurepip(machine: dict[str, str], tmp_path: Path) -> None:
    """As Debian's, without the package python3-venv."""
    library, upper = os.path.dirname(os.__file__), tmp_path / "upper"  # noqa: PTH120 - a string for the script
    upper.mkdir()
    script = f"""
        mount -t tmpfs tmpfs {upper} && mkdir {upper}/upper {upper}/work
        mount -t overlay overlay -o lowerdir={library},upperdir={upper}/upper,workdir={upper}/work {library}
        rm -r {library}/ensurepip; PATH={machine["PATH"]} exec make run"""
    unshare = [str(shutil.which("unshare")), "--mount", "--propagation=private"]
    message = refused(machine | {"PATH": os.environ["PATH"]}, *unshare, "bash", "-euc", script, within=60)
    assert "can't make virtual environments: it has no ensurepip\n  Debian and Ubuntu: apt-get install" in message


def test_a_python_that_is_too_old(machine: dict[str, str], tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    message = refused(machine, "make", "run", f"PYTHON={python}")
    assert message.startswith(f"error: Python 3.11 or newer is needed, and {python} is older or absent\n")


# --- machines without flock and `readlink -f` ------------------------------------------------------------------------


@pytest.fixture
def prepared(machine: dict[str, str]) -> dict[str, str]:
    """The same with this repository's environment and programs already there."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return machine | {"XDG_CACHE_HOME": cache}


def test_a_cluster_of_yours_on_another_system(prepared: dict[str, str], tmp_path: Path) -> None:
    uname(prepared, "Darwin")
    config = tmp_path / "config"
    config.write_text("contexts: [{name: shop, context: {}}, {name: kind-flaskapp, context: {}}]\n")
    variables = prepared | {"KUBECONFIG": str(config), "KUBE_CONTEXT": "shopp"}
    assert refused(variables, "make", "up") == (
        "error: KUBE_CONTEXT=shopp is not in your kubeconfig, did you mean shop?\n"
        "  the contexts are: shop, kind-flaskapp\n"
    )
    message = refused(variables | {"KUBE_CONTEXT": "shop"}, "make", "up")
    assert "images can't be loaded into the nodes of 'shop'" in message


def test_the_charts_words_on_another_system(prepared: dict[str, str], tmp_path: Path) -> None:
    uname(prepared, "Darwin")
    (tmp_path / "link").symlink_to(ROOT / "deploy/flaskapp-deploy")
    for program in ("readlink", "cut"):
        (Path(prepared["PATH"]) / program).symlink_to(str(shutil.which(program)))
    result = subprocess.run([tmp_path / "link", "chart"], env=prepared, capture_output=True, text=True, cwd=tmp_path)
    assert (result.stdout, result.stderr) == (f"{ROOT}/charts/flaskapp\n", "")
    result = subprocess.run(["make", "manifests"], cwd=ROOT, env=prepared, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
