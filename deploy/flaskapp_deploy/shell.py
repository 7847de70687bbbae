"""What every room needs of the machine: errors, progress, files, locks and waits, each written once."""

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click

GRACE = 15  # seconds that a program has to end in an orderly way
PR_SET_PDEATHSIG = 1  # of prctl(2)


class DeployError(click.ClickException):
    """What was asked can't be done; the message says what is wrong and what to do."""

    def show(self, file: IO[Any] | None = None) -> None:
        """Print `error: ` and the message, on standard error."""
        click.echo(f"error: {self.message}", file=file or sys.stderr)


def cache() -> Path:
    """The user's cache of this project: `${XDG_CACHE_HOME:-~/.cache}/flaskapp`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flaskapp"


@contextmanager
def locked(path: Path, waiting: str) -> Iterator[None]:
    """Hold an exclusive lock on `path`; `waiting` is said when somebody else has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(waiting)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def write_atomic(path: Path, content: str | bytes, mode: int = 0o644) -> None:
    """Write a file whole or not at all, with these permissions from the first byte on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.touch(mode=mode)
    unfinished.write_bytes(content.encode() if isinstance(content, str) else content)
    unfinished.rename(path)


def write_changed(path: Path, content: str) -> bool:
    """Write a file unless it has this content: programs watch their settings. Return whether it changed."""
    if path.exists() and path.read_text() == content:
        return False
    write_atomic(path, content)
    return True


def copy_atomic(source: Path, target: Path) -> None:
    """Copy a file with its times, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(f".{os.getpid()}")
    shutil.copy2(source, unfinished)
    unfinished.rename(target)


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether a program may listen on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def reason(result: subprocess.CompletedProcess[str]) -> str:
    """The last line that a program printed on standard error, else on standard output; in any case one line."""
    lines = [line for text in (result.stdout, result.stderr) for line in (text or "").strip().splitlines()]
    return lines[-1] if lines else f"it ended with {result.returncode} and printed nothing"


def run(
    *command: str | Path,
    check: bool = True,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str = "",
    timeout: float | None = None,
    survives: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and capture what it prints.

    `env` comes on top of this process's own; after `timeout` seconds it is killed. Without `check`, a failure is no
    error: the caller reads `returncode`. It ends when this process is killed, unless it `survives`: a package manager
    must not stop halfway.
    """
    environment = {**os.environ, **(env or {})}
    line = [str(word) for word in command]
    pipe, watched = subprocess.PIPE, line if survives else [*_watchdog(line[0]), *line]
    try:
        process = subprocess.Popen(watched, cwd=cwd, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    except FileNotFoundError as error:
        raise DeployError(f"{error.filename} is not there: install it, or add its directory to PATH") from error
    with process:
        try:
            stdout, stderr = process.communicate(stdin, timeout)
        except subprocess.TimeoutExpired as error:
            process.kill()
            raise DeployError(f"{' '.join(line)} took more than {timeout:.0f} s") from error
        except BaseException:  # Ctrl-C, or a signal to this process
            stop(process, grace=GRACE)
            raise
    result = subprocess.CompletedProcess(line, process.returncode, stdout, stderr)
    if check and result.returncode:
        raise DeployError(f"{Path(line[0]).name} {' '.join(line[1:2])} failed: {reason(result)}")
    return result


def _watchdog(program: str) -> list[str]:
    """Words to put before a program, so that it gets SIGTERM when this process ends, however it ends (Linux)."""
    return ["setpriv", "--pdeathsig=TERM", "--"] if shutil.which("setpriv") and shutil.which(program) else []


def end_with_make() -> None:
    """Let SIGTERM end this process as Ctrl-C does, and send it when a make that started it is killed (Linux)."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if "MAKELEVEL" in os.environ and sys.platform == "linux":
        import ctypes  # only here: `--help` is quick without it

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def start(command: Sequence[str], log: Path, mode: str = "wb", **options: Any) -> "subprocess.Popen[bytes]":
    """Start a program in a session of its own, which writes what it prints into a log; `options` are Popen's."""
    log.parent.mkdir(parents=True, exist_ok=True)
    # With a strict umask, containerd would make file systems that only root may enter, and pods' users are others.
    options = {"stdin": subprocess.DEVNULL, "start_new_session": True, "umask": 0o022, **options}
    with log.open(mode) as output:
        return subprocess.Popen(command, stdout=output, stderr=output, **options)


def stop(process: subprocess.Popen[Any], grace: float = 10, first: signal.Signals = signal.SIGTERM) -> None:
    """End a process: the first signal, and SIGKILL after `grace` seconds."""
    process.send_signal(first)
    try:
        process.wait(timeout=grace)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def say(line: str) -> None:
    """Progress goes to standard error, so that standard output stays for results."""
    print(line, file=sys.stderr, flush=True)


def seconds(limit: float) -> float:
    """A limit in seconds, as many times longer as TIMEOUT_FACTOR says: slow machines and emulators set it."""
    factor = os.environ.get("TIMEOUT_FACTOR", "1")
    try:
        return limit * max(1.0, float(factor))
    except ValueError as error:
        raise DeployError(
            f"TIMEOUT_FACTOR={factor!r} is not a number; use 3 for three times the usual limits"
        ) from error


def wait_until(
    condition: Callable[[], bool],
    limit: float,
    what: str,
    logs: Sequence[Path] = (),
    running: Callable[[], bool] | None = None,
    every: float = 0.2,
) -> float:
    """Look every so many seconds until `condition` holds, `limit` seconds at most; return the seconds that took.

    The wait ends also when `running` no longer holds. Its error has the last lines of the first of `logs` with any.
    """
    allowed = seconds(limit)
    started = time.monotonic()
    while not condition():
        if running and not running():
            raise DeployError(f"{what} ended while starting{last_lines(logs)}")
        if time.monotonic() - started > allowed:
            raise DeployError(f"{what} is not ready after {allowed:.0f} s{last_lines(logs)}")
        time.sleep(every)
    return time.monotonic() - started


def tail(text: str, count: int = 8) -> str:
    """The last lines of what a program printed, for the end of an error message."""
    return "\n".join(text.strip().splitlines()[-count:])


def last_lines(logs: Sequence[Path], count: int = 8) -> str:
    """The last lines of the first of these logs that has any, for the end of an error message."""
    for log in logs:
        lines = log.read_text(errors="replace").strip().splitlines() if log.is_file() else []
        if lines:
            return "\n".join([f"; last lines of {log}:", *(f"  {line[:300]}" for line in lines[-count:])])
    return "; it wrote no log" if logs else ""
