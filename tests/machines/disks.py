"""The disks of a machine, made once and kept in the user's cache: a Debian that boots, and what `make up` caches."""

import hashlib
import os
import pwd
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from flaskapp_deploy import programs, shell
from flaskapp_deploy.cluster import addons
from flaskapp_deploy.images import image

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
HOME = pwd.getpwnam("root").pw_dir  # in every machine as on this one
# What decides what lies in the cache that a machine starts with.
SOURCES = ("Dockerfile", "requirements*.lock", "deploy/venv.sh", "deploy/flaskapp_deploy/programs/**/go.*")


@dataclass(frozen=True)
class Debian:
    """One release, and what is set in it besides (the shell file of its name).

    Attributes:
        memory: MiB.
        user: Whose checkout it is, and who types `make`.
        besides: What is set in it that an installer doesn't set.
    """

    version: int
    release: str
    memory: int
    user: str
    checkout: str
    umask: str
    besides: str

    def __str__(self) -> str:
        return f"Debian {self.version}"


BOOKWORM = Debian(
    version=12,
    release="bookworm",
    memory=4096,
    user="root",
    checkout="/srv/my checkouts/flaskapp",
    umask="077",
    besides="umask 077, a checkout with a space in its path, an nftables firewall that drops by default",
)
TRIXIE = Debian(
    version=13,
    release="trixie",
    memory=6144,
    user="dev",
    checkout="/home/dev/flaskapp",
    umask="022",
    besides="`sudo make up`, LANG=de_DE.UTF-8, systemd-resolved's 127.0.0.53 in resolv.conf, docker.io at the end",
)


def system(debian: Debian) -> Path:
    """The folder of a bootable disk, its kernel and initrd."""
    scripts = [HERE / "image.sh", HERE / f"{debian.release}.sh"]

    def make(work: Path) -> None:
        shell.say(f"making the disk of {debian} (about 4 minutes the first time)")
        log = shell.cache() / f"machines/{debian.release}.log"
        with log.open("wb") as output:
            code = subprocess.run([str(scripts[0]), debian.release, str(work)], stdout=output, stderr=output).returncode
        assert code == 0, f"{scripts[0].name} ended with {code}{shell.last_lines([log])}"

    return _kept(debian.release, [path.read_bytes() for path in scripts], make)


def cache(debian: Debian) -> Path:
    """A disk with what `make up` keeps in the user's cache: an emulated machine would compile for hours."""
    base = system(debian)
    sources = [path for pattern in SOURCES for path in sorted(ROOT.glob(pattern))]
    recipe = [base.name.encode(), Path(__file__).read_bytes(), *(path.read_bytes() for path in sources)]

    def make(work: Path) -> None:
        shell.say(f"making the cache of {debian} (about 4 minutes the first time)")
        _fill(work / "cache", debian)
        _virtual_environment(base / "disk.img", work / "cache")
        shell.run("truncate", "-s", "16G", work / "disk.img")
        shell.run("mke2fs", "-q", "-t", "ext4", "-L", "cache", "-d", work / "cache", work / "disk.img")
        shutil.rmtree(work / "cache")

    return _kept(f"{debian.release}-cache", recipe, make) / "disk.img"


def _fill(stage: Path, debian: Debian) -> None:
    """Put the programs and images of `make up` into a cache, from a clone with the machine's umask."""
    kubernetes = programs.binaries("kubernetes")
    tools = [kubernetes, programs.program("chart", "helm").parent, programs.binaries("images")]
    made = [path for name in ("addons", "baseimages") if (path := shell.cache() / name).exists()]
    (stage / "flaskapp/tools").mkdir(parents=True)
    shell.run("cp", "-a", *tools, stage / "flaskapp/tools")  # the servers are one file with several names
    if made:
        shell.run("cp", "-a", *made, stage / "flaskapp")
    clone = stage.parent / "clone"
    shell.run("sh", "-c", f"umask {debian.umask}; git clone -q {shlex.quote(str(ROOT))} {shlex.quote(str(clone))}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(stage))
        addons.images(stage / "flaskapp/tools" / kubernetes.name)
        image.build_image(clone, name="flaskapp")
        image.build_image(clone / "examples/hello", name="hello")
        image.chart_archives()
    shutil.rmtree(clone)


def _virtual_environment(disk: Path, stage: Path) -> None:
    """Let deploy/venv.sh make its environment with the machine's own Python, at the place where it will lie."""
    command = ["unshare", "--mount", str(HERE / "chroot.sh"), str(disk), str(stage), str(ROOT), "/mnt/deploy/venv.sh"]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": HOME}
    environment |= {name: value for name, value in os.environ.items() if _of_pip(name)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, shell.tail(result.stdout + result.stderr, 20)


def _of_pip(name: str) -> bool:
    return name.upper().startswith("PIP_") or name.upper().endswith(("_PROXY", "CERT_FILE", "CA_BUNDLE"))


def _kept(name: str, recipe: Iterable[bytes], make: Callable[[Path], None]) -> Path:
    """The folder of this recipe: from the cache, or made in one that gets its name when it is whole."""
    home = shell.cache() / "machines"
    target = home / f"{name}-{hashlib.sha256(b'|'.join(recipe)).hexdigest()[:12]}"
    with shell.locked(home / f"{name}.lock", f"waiting for another run that makes {name}"):
        if not target.exists():
            with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=home) as directory:
                work = Path(directory) / name
                work.mkdir()
                make(work)
                work.rename(target)
            for old in set(home.glob(f"{name}-{'[0-9a-f]' * 12}")) - {target}:
                shutil.rmtree(old)
    return target
