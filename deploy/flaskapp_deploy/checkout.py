"""The virtual environment of a checkout, made where there is none, by Python's own library alone.

`deploy/venv.sh` runs this with the machine's Python and the words of the command to come, and takes the directory from
standard output. It lies in the user's cache, keyed by the lock and the Python; pip checks every hash.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from flaskapp_deploy import machine, settings

LOCK = Path(__file__).resolve().parents[2] / "requirements-dev.lock"
MEGABYTES = 1200  # that the packages take, with what pip keeps meanwhile
NEEDS_A_CLUSTER = (["up"], ["cluster", "up"], ["rehearse"])
NO_VENV = """\
{python} can't make virtual environments: it has no ensurepip
  Debian and Ubuntu: apt-get install python3-venv; another Python: PYTHON=python3.13"""


class CheckoutError(Exception):
    """The environment can't be made; the message says why and what to do."""


def main(words: list[str]) -> None:
    """Print the environment's directory, after making it for a command that can run here."""
    if problem := settings.problem(os.environ.get("MAKE_NAMES", "").split()):
        raise CheckoutError(problem)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flaskapp"
    identity = f"Python {sys.version}\n{sys.prefix}\n".encode() + LOCK.read_bytes()
    venv = cache / f"venv-{hashlib.sha256(identity).hexdigest()[:12]}"
    if not (venv / "complete").exists():
        check(words, cache)
        with Path(f"{venv}.lock").open("w") as lock:
            wait_for(lock.fileno())
            if not (venv / "complete").exists():
                make(venv)
    print(venv)


def check(words: list[str], cache: Path) -> None:
    """Refuse at once what would be refused after the minute that the packages take."""
    is_elsewhere = os.environ.get("KUBE_CONTEXT") or any(word.startswith(("--context", "--help")) for word in words)
    if not is_elsewhere and any(words[: len(start)] == start for start in NEEDS_A_CLUSTER):
        problem = machine.target_problem() if words[0] == "up" else machine.local_cluster_problem()
        if problem:
            raise CheckoutError(problem)
    cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache).free // 2**20
    if free < MEGABYTES:
        raise CheckoutError(
            f"{cache} has {free} MiB of free disk, and the Python packages take {MEGABYTES}\n"
            "  free some, or set XDG_CACHE_HOME to a directory on another disk"
        )


def wait_for(lock: int) -> None:
    """Take the lock; say so where another command has it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("waiting for another installation of the Python packages")
        fcntl.flock(lock, fcntl.LOCK_EX)


def make(venv: Path) -> None:
    """Make the environment. The lock is complete: without --no-deps, pip would look for newer versions."""
    say("installing Python packages from requirements-dev.lock (about a minute the first time)")
    shutil.rmtree(venv, ignore_errors=True)
    if not find_spec("ensurepip") and os.geteuid() == 0 and shutil.which("apt-get"):
        # Debian keeps what makes virtual environments in a package of its own.
        say("installing Debian's package python3-venv, removing none")
        run("apt-get", "update", "-qq", what="Debian's list of packages can't be fetched")
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "--no-remove", "python3-venv"]
        run(*install, what="python3-venv can't be installed")
    run(sys.executable, "-m", "venv", str(venv), what=NO_VENV.format(python=sys.executable))
    pip = [str(venv / "bin/pip"), "--disable-pip-version-check", "--quiet", "install", "--no-deps", "--require-hashes"]
    what = (
        "the Python packages can't be installed; pip's reason is above\n"
        "  where it found no version of a package at all, its index can't be reached: see `pip config list`"
    )
    # Python compiles what a command imports; compiling all of it takes half of this time.
    run(*pip, "--no-compile", f"--requirement={LOCK}", what=what)
    (venv / "complete").touch()


def run(*command: str, what: str) -> None:
    """Run a program that prints to standard error; `what` is the error where it fails."""
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    if subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, env=environment).returncode:
        raise CheckoutError(what)


def say(line: str) -> None:
    """Print a line of progress."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (CheckoutError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
