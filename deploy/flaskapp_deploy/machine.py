"""What this machine can run, found out by Python's own library alone: before anything is installed."""

import difflib
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

DOCKER_TIMEOUT = 5  # seconds
ELSEWHERE = "start Docker (kind is used then) or set KUBE_CONTEXT=…"


def system() -> str:
    """The kernel's name, such as Linux or Darwin."""
    uname = shutil.which("uname")
    return subprocess.run([uname, "-s"], capture_output=True, text=True).stdout.strip() if uname else platform.system()


def local_cluster_problem(docker: str = "") -> str:
    """Why the local cluster can't run here, what to do, and why Docker does not help; empty where it can."""
    why = f"\n  {docker}" if docker else ""
    if system() != "Linux":
        return f"the local cluster needs Linux, and this is {system()}; {ELSEWHERE}{why}"
    if os.geteuid() != 0:
        return f"the local cluster needs root; run `sudo make up`, {ELSEWHERE}{why}"
    return ""


def docker_problem() -> str:
    """Why no Docker engine answers; empty where one does."""
    if not shutil.which("docker"):
        return "docker is not installed"
    command = ["docker", "info", "--format={{.ServerVersion}}"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=DOCKER_TIMEOUT)
    except subprocess.TimeoutExpired:
        return f"docker is installed, but its engine did not answer within {DOCKER_TIMEOUT} s"
    if result.returncode == 0:
        return ""
    lines = result.stderr.strip().splitlines() or [f"`docker info` ended with {result.returncode}"]
    return f"docker is installed, but its engine does not answer: {lines[-1]}"


def target_problem() -> str:
    """Why `up` has no cluster to go to on this machine; empty where it has one."""
    docker = docker_problem()
    return local_cluster_problem(docker) if docker else ""


def available_memory(meminfo: Path = Path("/proc/meminfo")) -> int:
    """Bytes that programs can still have; 0 where the system has no such file."""
    if not meminfo.exists():
        return 0
    return int(meminfo.read_text().partition("MemAvailable:")[2].split()[0]) * 1024


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """`, did you mean …?` with the nearest of the words; empty where none is near."""
    near = difflib.get_close_matches(word, list(words), 1)
    return f", did you mean {near[0]}?" if near else ""
