"""The image of a commit: built for both architectures, joined to one index, and started once."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

from flaskapp_deploy import shell
from flaskapp_deploy.images import buildkit
from flaskapp_deploy.images.image import build_image
from flaskapp_deploy.images.oci import INDEX, Layout
from flaskapp_deploy.release import chart, cosign, registryclient, smoke, state
from flaskapp_deploy.release.config import ReleaseConfig
from flaskapp_deploy.release.state import Base, Image, ReleaseState
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
    images = layouts()
    digests = {platform: layout.digest for platform, layout in images.items()}
    image = Image(repository, digest, digests, bases)
    manifests = chart.render(config, chart.prepare(config, release, image, state.FOLDER / "chart"))
    for platform, layout in images.items():
        say(smoke.test(layout, platform, manifests, chart.url_scheme(config)))
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
    labels = {"revision": release.commit, "version": release.version, "source": release.source}
    bases = []
    with buildkit.daemon() as builder:
        for platform in PLATFORMS:
            folder = _folder(platform)
            image = build_image(
                config.application,
                name=config.name,
                platform=platform,
                labels={f"{LABELS}.{name}": value for name, value in labels.items()},
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
    bases = []
    for platform in PLATFORMS:
        folder = _folder(platform)
        registryclient.crane("pull", "--format=oci", f"--platform={platform}", reference, str(folder))
        labels = Layout.read(folder).config["config"].get("Labels", {})
        bases.append(Base(labels.get(f"{LABELS}.base.name", ""), labels.get(f"{LABELS}.base.digest", ""), platform))
    return tuple(bases)


def _join() -> str:
    """Join the platforms' layouts into one at build/release/image, blobs linked; return the digest of its index."""
    target = state.FOLDER / "image"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    manifests = []
    for platform, layout in layouts().items():
        shell.run("cp", "--recursive", "--link", "--force", layout.path / "blobs", target)
        system, _, machine = platform.partition("/")
        size, media_type = layout.blob(layout.digest).stat().st_size, layout.manifest["mediaType"]
        described = {"mediaType": media_type, "digest": layout.digest, "size": size}
        manifests.append(described | {"platform": {"architecture": machine, "os": system}})
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).encode()
    (target / "index.json").write_bytes(index)
    (target / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return f"sha256:{hashlib.sha256(index).hexdigest()}"
