"""Official releases of programs, by the addresses and checksums of downloads.json, where the network has them.

FLASKAPP_DOWNLOADS names a mirror (`https://mirror/dl.k8s.io/…` for `https://dl.k8s.io/…`), or is `off`. FLASKAPP_PINS
names another file of the same form, for programs that somebody else has built.
"""

import functools
import hashlib
import json
import os
import platform
import sys
import tarfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import requests

from flaskapp_deploy import shell
from flaskapp_deploy.shell import DeployError

PINS = Path(__file__).with_name("downloads.json")
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
PROBE = 3.0  # seconds for the network's first answer; without one everything is compiled
STALL = 30.0  # seconds without a byte
TRIES = 3


def fetch(name: str, version: str, target: Path) -> bool:
    """Download a program to `target`; return False where it has no checksum, or no network, and must be compiled.

    Raises:
        DeployError: what came has another checksum than the pinned one.
    """
    architecture = ARCHITECTURES.get(platform.machine(), "")
    pin = pins().get(name, {})
    checksum = pin.get("checksums", {}).get(version, {}).get(architecture)
    if (
        not checksum
        or sys.platform != "linux"
        or os.environ.get("FLASKAPP_DOWNLOADS") == "off"
        or not network_answers()
    ):
        return False
    url = mirrored(pin["url"].format(version=version, arch=architecture))
    archive = target.with_name(f"{target.name}.download")
    try:
        if not _download(url, archive):
            return False
        _check(archive, checksum, f"{name} {version} from {url}")
        if member := pin.get("member", "").format(arch=architecture):
            with tarfile.open(archive) as tar:
                program = tar.getmember(member).replace(name=target.name)
                tar.extract(program, target.parent, filter="data")
        else:
            archive.rename(target)
        target.chmod(0o755)
    finally:
        archive.unlink(missing_ok=True)
    return True


def file() -> Path:
    """Return the file of the pins."""
    return Path(os.environ.get("FLASKAPP_PINS") or PINS)


def pins() -> dict[str, Any]:
    """Return what is known of each program: `url`, `published`, `member` of an archive, `checksums` by version."""
    return dict(json.loads(file().read_text()))


def mirrored(url: str) -> str:
    """Return the address at the mirror, where there is one."""
    mirror = os.environ.get("FLASKAPP_DOWNLOADS", "").rstrip("/")
    return f"{mirror}/{url.partition('://')[2]}" if mirror else url


@functools.cache
def network_answers() -> bool:
    """Ask the first server, once for all; in a thread, as looking up its name may take longer than any timeout."""
    server = "/".join(mirrored(next(iter(pins().values()))["url"]).split("/")[:3])
    answers: list[int] = []

    def ask() -> None:
        with suppress(requests.RequestException):
            answers.append(requests.head(server, timeout=PROBE).status_code)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE)
    if not answers:
        shell.say(f"{server} does not answer: programs are compiled instead of downloaded")
    return bool(answers)


def _download(url: str, target: Path) -> bool:
    """Download a file, from the start again where the connection breaks; return whether all of it came."""
    for _ in range(TRIES):
        try:
            with requests.get(url, stream=True, timeout=(PROBE, STALL)) as answer, target.open("wb") as file:
                answer.raise_for_status()
                file.writelines(answer.iter_content(2**20))
            return True
        except requests.RequestException as error:
            reason = error
    shell.say(f"{url} can't be downloaded, and is compiled: {reason}")
    return False


def _check(archive: Path, checksum: str, what: str) -> None:
    """Refuse a file whose SHA-256 or SHA-512 (by its length) is not this one."""
    with archive.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256" if len(checksum) == 64 else "sha512").hexdigest()
    if actual != checksum:
        raise DeployError(
            f"{what} has the checksum {actual[:16]}… instead of {checksum[:16]}…\n"
            "  use another network or mirror; FLASKAPP_DOWNLOADS=off compiles it"
        )
