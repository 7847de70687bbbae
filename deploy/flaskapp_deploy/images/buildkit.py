"""BuildKit, started for a build and stopped after it: no Docker engine, and no service left behind."""

import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flaskapp_deploy import programs, shell
from flaskapp_deploy.images import uvreason
from flaskapp_deploy.images.oci import Layout
from flaskapp_deploy.programs import packages
from flaskapp_deploy.shell import DeployError

Progress = Callable[[str], None]
# Megabytes of cache that BuildKit keeps: always, of free disk at the least, at the most.
CACHE = "1000,2000,8000"
MINUTES = 30
# A process that gets this signal when its parent ends, however that ends.
WATCHDOG = ["setpriv", "--pdeathsig"]


class BuildError(DeployError):
    """An image can't be built; the message says why and what to do."""


@dataclass(frozen=True)
class Builder:
    """A running buildkitd. `address` is its socket, `programs` the directory that holds buildctl."""

    address: str
    programs: Path
    progress: Progress

    def build(
        self,
        context: Path,
        output: Path,
        *,
        what: str,
        dockerfile: Path | None = None,
        platform: str = "",
        options: Mapping[str, str] | None = None,
        bases: Mapping[str, Layout] | None = None,
        directories: Mapping[str, Path] | None = None,
        secrets: Mapping[str, Path] | None = None,
        push: str = "",
    ) -> Layout:
        """Build `context` by `dockerfile` (default: the one inside it) into a new OCI layout at `output`.

        `options` are the Dockerfile frontend's (`build-arg:NAME`, `label:NAME`, `no-cache`); `bases` are layouts that
        stand in for the images of FROM lines, `directories` for stages; `secrets` are files that RUN steps may mount.
        `push` is a reference to push the same image to, with the login of DOCKER_CONFIG.
        """
        dockerfile = dockerfile or context / "Dockerfile"
        command = [str(self.programs / "buildctl"), "--addr", self.address, "build", "--progress=plain"]
        command += ["--frontend=dockerfile.v0", f"--local=context={context}", f"--local=dockerfile={dockerfile.parent}"]
        options = {"filename": dockerfile.name} | ({"platform": platform} if platform else {}) | dict(options or {})
        for number, (reference, layout) in enumerate((bases or {}).items()):
            command.append(f"--oci-layout=base{number}={layout.path}")
            options[f"context:{reference}"] = f"oci-layout://base{number}@{layout.digest}"
        for name, directory in (directories or {}).items():
            command.append(f"--local={name}={directory}")
            options[f"context:{name}"] = f"local:{name}"
        command += [f"--opt={name}={value}" for name, value in options.items()]
        command += [f"--secret=id={name},src={path}" for name, path in (secrets or {}).items()]
        command.append(f"--output=type=oci,tar=false,dest={output},rewrite-timestamp=true")
        if push:
            command.append(f"--output=type=image,name={push},push=true,oci-mediatypes=true,rewrite-timestamp=true")
        log = output.with_suffix(".log")
        try:
            run(command, log, what, self.progress)
        finally:
            for note in dict.fromkeys(re.findall(r"^#\d+ [\d.]+ (note: .*)", log.read_text(), re.MULTILINE)):
                self.progress(f"  {note}")
        return Layout.read(output)


@contextmanager
def daemon(trusted: Mapping[str, Path] | None = None) -> Iterator[Builder]:
    """Run buildkitd while the block runs; builds of several processes take turns, and share its cache.

    `trusted` are certificates to trust, by the registry (`HOST:PORT`) that they vouch for.
    """
    if os.geteuid() != 0:
        raise BuildError("BuildKit needs root here: run this as root, or build with `docker build .`")
    packages.ensure(packages.IMAGES)
    directory = programs.binaries("images")
    state = shell.cache() / "buildkit"
    with (
        shell.locked(state / "lock", "waiting for another image build to end"),
        tempfile.TemporaryDirectory(prefix="buildkit-") as run_directory,
    ):
        address = f"unix://{run_directory}/buildkitd.sock"
        log, settings = state / "buildkitd.log", Path(run_directory) / "buildkitd.toml"
        # Otherwise BuildKit speaks plain HTTP to a registry on this machine.
        settings.write_text(
            "".join(f'[registry."{host}"]\nhttp = false\nca = ["{ca}"]\n' for host, ca in (trusted or {}).items())
        )
        command = [*WATCHDOG, "TERM", str(directory / "buildkitd"), f"--addr={address}"]
        command += [f"--config={settings}", f"--root={state / 'root'}", f"--otel-socket-path={run_directory}/otel.sock"]
        # The host's network: RUN steps reach what pip reaches here, and no bridge is made.
        command += ["--containerd-worker=false", "--oci-worker-net=host", f"--oci-worker-gc-keepstorage={CACHE}"]
        process = shell.start(command, log)
        check = [str(directory / "buildctl"), "--addr", address, "--timeout=2", "debug", "info"]

        def answers() -> bool:
            return shell.run(*check, check=False).returncode == 0

        try:
            shell.wait_until(answers, 60, "buildkitd", [log], lambda: process.poll() is None)
            yield Builder(address, directory, shell.say)
        finally:
            shell.stop(process, grace=20)


def run(command: Sequence[str], log: Path, what: str, progress: Progress) -> None:
    """Run a long command with its output in `log`; say every 10 s that it goes on, and on failure what it printed."""
    process = shell.start([*WATCHDOG, "KILL", *command], log)
    try:
        for elapsed in range(10, MINUTES * 60 + 1, 10):
            try:
                code = process.wait(10)
                break
            except subprocess.TimeoutExpired:
                progress(f"  {what}: {elapsed} s so far")
        else:
            raise BuildError(f"{what} took more than {MINUTES} minutes; its log is {log}")
    finally:
        shell.stop(process, grace=0)
    if code:
        raise BuildError(f"{what}: {cause(log.read_text(errors='replace'))}")


def cause(log: str) -> str:
    """Return what a step of the Dockerfile printed as `error: …`, with uv's reason where that is about requirements."""
    lines = log.splitlines()
    last = lines[-1] if lines else ""
    # Not a step that failed but what came before or after them: an image that can't be read, a push that is refused.
    if last.startswith("error: ") and "did not complete" not in last:
        return last.removeprefix("error: ").removeprefix("failed to solve: ")
    steps = [(match[1], match[2]) for line in lines if (match := re.match(r"#(\d+) [\d.]+ ?(.*)", line))]
    for failed, line in steps:
        if line.startswith("error: "):
            return uvreason.reason([text for number, text in steps if number == failed])
    if pip := next((text for _, text in steps if text.startswith("ERROR: ")), ""):
        return (
            f"uv can't be installed: {pip.removeprefix('ERROR: ')}\n"
            "  check the network, and pip's settings on this machine: index, proxy, certificates"
        )
    status = last.rpartition("did not complete successfully: ")[2]
    return "it failed; its last lines:\n" + "\n".join([*([text for _, text in steps] or lines)[-12:], status])
