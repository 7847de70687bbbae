"""Images by the one Dockerfile, for any directory with a WSGI application and its requirements."""

import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from flaskapp_deploy import shell
from flaskapp_deploy.images import baseimages, buildkit, packageindex, strip
from flaskapp_deploy.images.baseimages import DOCKERFILE, EPOCH, Base
from flaskapp_deploy.images.buildkit import Builder
from flaskapp_deploy.images.oci import Layout

# Archives of one name that are kept: another process may still be reading the one before.
KEPT = 3


@dataclass(frozen=True)
class Image:
    """A built image. `archive` is one tar for `ctr images import` and `docker load`; sizes are compressed bytes."""

    reference: str
    digest: str
    platform: str
    archive: Path
    base: Base
    layers: tuple[tuple[str, int], ...]

    @property
    def size(self) -> int:
        """Compressed bytes of all layers."""
        return sum(size for _, size in self.layers)

    @property
    def own_layers(self) -> tuple[tuple[str, int], ...]:
        """(digest, size) of the layers above the base: /deps, /app and the empty one of WORKDIR."""
        return self.layers[-3:]


def build_image(
    context: Path,
    *,
    name: str,
    wsgi: str = "",
    python: str = "",
    platform: str = "",
    output: Path | None = None,
    layout: Path | None = None,
    labels: Mapping[str, str] | None = None,
    push: str = "",
    fresh: bool = False,
    builder: Builder | None = None,
) -> Image:
    """Build the application in `context`; equal source gives an equal reference (`localhost/NAME:` and its digest).

    Defaults: `wsgi` (`module:callable`) is what Flask's discovery finds, `python` (such as 3.11) the application's
    .python-version or else the Dockerfile's, `platform` this machine's, `output` (of the archive) in the user's cache.
    `layout` is where to leave the image as an OCI layout too, `push` a reference to push it to; `fresh` ignores the
    build cache.
    """
    if not context.is_dir():
        raise buildkit.BuildError(f"{context} is not a directory: name the one that holds the application")
    platform = platform or f"linux/{baseimages.architecture()}"
    started = time.monotonic()
    with _building(builder) as (builder, work):
        base, options, bases = _base(builder, platform, python or _declared_python(context))
        options |= {"build-arg:WSGI": wsgi} | ({"no-cache": ""} if fresh else {})
        labels = {"org.opencontainers.image.title": name, **(labels or {})}
        options |= {f"label:{key}": value for key, value in labels.items()}
        (work / "helpers").mkdir()  # what runs inside the build
        shutil.copy(strip.__file__, work / "helpers")
        built = builder.build(
            context.resolve(),
            layout or work / "image",
            what=f"building {name}",
            dockerfile=DOCKERFILE,
            platform=platform,
            options=options,
            bases=bases,
            directories={"helpers": work / "helpers"},
            secrets=packageindex.secrets(work),
            push=push,
        )
        image = _image(built, name, platform, base, output)
    size, own = image.size / 2**20, sum(size for _, size in image.own_layers) / 2**20
    took = f"in {time.monotonic() - started:.0f} s"
    builder.progress(f"built {image.reference} ({platform}, {size:.1f} MiB, {own:.1f} above its base) {took}")
    return image


def scratch_image(
    builder: Builder, binary: Path, reference: str, entrypoint: Sequence[str], more: Mapping[str, Path] = {}
) -> Path:
    """Put one static program and `more` files (path in the image: file) into an image; return its archive."""
    files = {f"/{binary.name}": binary, **more}
    with _building(builder) as (builder, work):
        context, lines = work / "context", ["FROM scratch"]
        for number, (target, source) in enumerate(files.items()):
            copy = context / str(number) / Path(target).name
            copy.parent.mkdir(parents=True)
            shutil.copy2(source, copy)
            copy.chmod(0o755 if os.access(source, os.X_OK) else 0o644)  # whatever the umask was when it was made
            lines.append(f"COPY {number}/{copy.name} {target}")
        lines += [f"ENTRYPOINT {json.dumps(entrypoint)}"]
        (context / "Dockerfile").write_text("\n".join(lines) + "\n")
        options = {"build-arg:SOURCE_DATE_EPOCH": str(EPOCH)}
        layout = builder.build(context, work / "image", what=f"building {reference}", options=options)
        return layout.archive(_archive(reference.partition(":")[0].rpartition("/")[2], layout), reference)


def chart_archives(builder: Builder | None = None) -> dict[str, Path]:
    """Reference -> archive of the stand-ins for the chart's own images; none of those that a registry serves."""
    archives = {}
    with _building(builder) as (builder, _):
        for name, base in {"postgres": baseimages.postgres(builder), "busybox": baseimages.busybox(builder)}.items():
            if base.layout:
                target = _archive(name, base.layout)
                archives[base.reference] = target
                if not target.exists():
                    base.layout.archive(target, base.reference)
    return archives


def _declared_python(context: Path) -> str:
    """Return the version in the application's .python-version, which uv and pyenv read, without its patch number."""
    file = context / ".python-version"
    match = re.match(r"\s*(\d+\.\d+)", file.read_text()) if file.is_file() else None
    return match[1] if match else baseimages.VERSION


def _base(builder: Builder, platform: str, python: str) -> tuple[Base, dict[str, str], dict[str, Layout]]:
    """Return the Python base of a platform, and the build options and stand-ins that make the Dockerfile use it."""
    own, wanted = baseimages.architecture(), platform.partition("/")[2]
    base = baseimages.python(builder, wanted, python)
    name = base.reference if base.layout else f"{base.reference}@{base.digest}"
    options = {"build-arg:PYTHON": python, "build-arg:BASE": name}
    options |= {"label:org.opencontainers.image.base.name": name}
    options |= {"label:org.opencontainers.image.base.digest": base.digest}
    if base.layout is None:
        return base, options, {}
    bases = {f"{base.reference}::linux/{wanted}": base.layout}
    if wanted != own:
        native = baseimages.python(builder, own, python).layout
        assert native is not None, "the registry answered for one architecture only"
        bases[f"{base.reference}::linux/{own}"] = native
    return base, options, bases


def _image(layout: Layout, name: str, platform: str, base: Base, output: Path | None) -> Image:
    reference = f"localhost/{name}:{layout.digest.removeprefix('sha256:')[:12]}"
    target = output or _archive(f"{name}-{platform.partition('/')[2]}", layout)
    target.parent.mkdir(parents=True, exist_ok=True)
    if output or not target.exists():
        layout.archive(target, reference)
    layers = tuple((str(layer["digest"]), int(layer["size"])) for layer in layout.layers)
    return Image(reference, layout.digest, platform, target, base, layers)


def _archive(name: str, layout: Layout) -> Path:
    """Where the archive of an image is kept; older ones of the same name go."""
    home = shell.cache() / "images"
    home.mkdir(parents=True, exist_ok=True)
    target = home / f"{name}-{layout.digest.removeprefix('sha256:')[:12]}.tar"
    others = sorted(set(home.glob(f"{name}-{'[0-9a-f]' * 12}.tar")) - {target}, key=lambda path: path.stat().st_mtime)
    for path in others[: -(KEPT - 1)]:
        path.unlink(missing_ok=True)
    return target


@contextmanager
def _building(builder: Builder | None) -> Iterator[tuple[Builder, Path]]:
    """Give a running BuildKit (default: one of its own) and an empty folder."""
    with (
        nullcontext(builder) if builder else buildkit.daemon() as running,
        tempfile.TemporaryDirectory(prefix="flaskapp-image-") as directory,
    ):
        yield running, Path(directory)


def described(*items: Image | Base) -> str:
    """What images and bases are, as JSON: an object for one, a list for more."""
    return json.dumps(items[0] if len(items) == 1 else items, indent=2, default=_plain)


def _plain(value: Image | Base | Path) -> object:
    if isinstance(value, Base):
        return {"reference": value.reference, "digest": value.digest, "stand_in": value.stand_in}
    return vars(value) | {"size": value.size} if isinstance(value, Image) else str(value)
