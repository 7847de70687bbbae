"""The image of a commit: built for both architectures, joined to one index, and started once."""

import hashlib
import json
import os
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from flaskapp_deploy.images import buildkit
from flaskapp_deploy.images.image import build_image
from flaskapp_deploy.images.oci import INDEX, Layout
from flaskapp_deploy.release import chart, cosign, registryclient, smoke, state
from flaskapp_deploy.release.config import ReleaseConfig
from flaskapp_deploy.release.state import Base, Image, PlatformImage, ReleaseState
from flaskapp_deploy.shell import DeployError, say

# The nodes' first: t4g is arm64.
PLATFORMS = ("linux/arm64", "linux/amd64")
LABELS = "org.opencontainers.image"


def build(config: ReleaseConfig, to_push: bool = True) -> None:
    """Leave the index and its images in build/release, tested; what the registry has already is taken from there.

    Without `to_push`, the image is named localhost/NAME, and no registry is needed.

    Raises:
        DeployError: the base image's digest is unknown and this is AWS, the image doesn't serve, or what the registry
            has was not signed by this pipeline.
    """
    release = state.load()
    repository = registryclient.read_repository("IMAGE_REPOSITORY") if to_push else f"localhost/{config.name}"
    tagged = f"{repository}:{release.version}"
    if published := registryclient.find_digest(tagged) if to_push else "":
        say(f"{tagged} is there already ({published[:19]}…): that one is released")
        cosign.verify(f"{repository}@{published}", cosign.write_public_key(state.FOLDER))
        bases = _pull(f"{repository}@{published}")
    else:
        bases = _build(config, release)
    digest = _join()
    if published and digest != published:
        raise DeployError(f"{tagged} is no index of {' and '.join(PLATFORMS)}: it was not pushed by this pipeline")
    platforms = {
        platform: PlatformImage(layout.digest, sum(int(layer["size"]) for layer in layout.layers))
        for platform, layout in layouts().items()
    }
    image = Image(repository, release.version, digest, f"{repository}@{digest}", platforms, bases)
    manifests = chart.render(config, chart.prepare(config, release, image, state.FOLDER / "chart"))
    for platform, layout in layouts().items():
        say(smoke.test(layout, platform, manifests))
    state.save(replace(release, build=image))


def layouts() -> dict[str, Layout]:
    """Return each platform's image, as `build` left it."""
    return {platform: Layout.read(_folder(platform)) for platform in PLATFORMS}


def sbom(platform: str) -> Path:
    """Where `scan` leaves a platform's SBOM."""
    return _folder(platform).with_suffix(".cdx.json")


def _folder(platform: str) -> Path:
    return state.FOLDER / platform.replace("/", "-")


def _build(config: ReleaseConfig, release: ReleaseState) -> tuple[Base, ...]:
    labels = {
        f"{LABELS}.revision": release.commit,
        f"{LABELS}.version": release.version,
        f"{LABELS}.source": release.source,
    }
    bases = []
    with buildkit.daemon() as builder:
        for platform in PLATFORMS:
            folder = _folder(platform)
            image = build_image(
                config.application,
                name=config.name,
                platform=platform,
                labels=labels,
                layout=folder,
                output=folder.with_suffix(".tar"),
                builder=builder,
            )
            image.archive.unlink()
            base = Base(image.base.reference, image.base.digest, platform, image.base.stand_in)
            if base.stand_in and registryclient.on_aws():
                raise DeployError(f"{base.reference} did not answer, and AWS releases nothing on a stand-in: try again")
            bases.append(base)
    return tuple(bases)


def _pull(reference: str) -> tuple[Base, ...]:
    """Take the images from the registry; return what they say about their bases."""
    for platform in PLATFORMS:
        registryclient.crane("pull", "--format=oci", f"--platform={platform}", reference, str(_folder(platform)))
    labels = {platform: layout.config["config"].get("Labels", {}) for platform, layout in layouts().items()}
    return tuple(
        Base(each.get(f"{LABELS}.base.name", ""), each.get(f"{LABELS}.base.digest", ""), platform)
        for platform, each in labels.items()
    )


def _join() -> str:
    """Join the platforms' layouts into one at build/release/image; return its digest. Blobs are linked, not copied."""
    target = state.FOLDER / "image"
    shutil.rmtree(target, ignore_errors=True)
    manifests = []
    for platform, layout in layouts().items():
        shutil.copytree(layout.path / "blobs", target / "blobs", copy_function=_link, dirs_exist_ok=True)
        system, _, machine = platform.partition("/")
        size, media_type = layout.blob(layout.digest).stat().st_size, layout.manifest["mediaType"]
        described = {"mediaType": media_type, "digest": layout.digest, "size": size}
        manifests.append(described | {"platform": {"architecture": machine, "os": system}})
    content = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).encode()
    digest = hashlib.sha256(content).hexdigest()
    (target / "blobs/sha256" / digest).write_bytes(content)
    top = {"mediaType": INDEX, "digest": f"sha256:{digest}", "size": len(content)}
    (target / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
    (target / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return f"sha256:{digest}"


def _link(source: str, target: str) -> None:
    with suppress(FileExistsError):  # both platforms have the layers of code
        os.link(source, target)
