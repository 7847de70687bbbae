"""The image of a commit: built for both architectures, joined to one index, and started once."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from flaskapp_deploy.images import buildkit
from flaskapp_deploy.images.image import build_image
from flaskapp_deploy.images.oci import INDEX, Layout
from flaskapp_deploy.release import chart, cosign, registryclient, smoke, state
from flaskapp_deploy.release.config import Release
from flaskapp_deploy.shell import DeployError, say

# The nodes' first: t4g is arm64.
PLATFORMS = ("linux/arm64", "linux/amd64")


def build(release: Release, repository: str = "") -> None:
    """Leave the index and its images in build/release, tested; what the registry has already is taken from there.

    Args:
        repository: A name that no registry has, for a build that is not pushed.

    Raises:
        DeployError: the base image's digest is unknown and this is AWS, the image doesn't serve, or what the registry
            has was not signed by this pipeline.
    """
    known = state.need("version")
    pushed = not repository
    repository = repository or registryclient.repository("IMAGE_REPOSITORY")
    tagged = f"{repository}:{known['version']}"
    if published := registryclient.digest(tagged) if pushed else "":
        say(f"{tagged} is there already ({published[:19]}…): that one is released")
        cosign.verify(f"{repository}@{published}", cosign.public_key(state.FOLDER))
        image = _pull(f"{repository}@{published}")
    else:
        image = _build(release, known)
    image |= {"repository": repository, "tag": known["version"]}
    if published and image["digest"] != published:
        raise DeployError(f"{tagged} is no index of {' and '.join(PLATFORMS)}: it was not pushed by this pipeline")
    prepared = chart.prepare(release, known, image, state.FOLDER / "chart")
    manifests = chart.render(release, prepared)
    for platform in PLATFORMS:
        say(smoke.test(_layout(platform), platform, manifests))
    state.add(build=image)


def _build(release: Release, known: Mapping[str, Any]) -> dict[str, Any]:
    labels = {
        "org.opencontainers.image.revision": known["commit"],
        "org.opencontainers.image.version": known["version"],
        "org.opencontainers.image.source": known["source"],
    }
    bases = []
    with buildkit.daemon() as builder:
        for platform in PLATFORMS:
            folder = _folder(platform)
            image = build_image(
                release.application,
                name=release.name,
                platform=platform,
                labels=labels,
                layout=folder,
                output=folder.with_suffix(".tar"),
                builder=builder,
            )
            image.archive.unlink()
            base = {"reference": image.base.reference, "digest": image.base.digest, "stand_in": image.base.stand_in}
            if image.base.stand_in and on_aws():
                raise DeployError(
                    f"{base['reference']} did not answer, and AWS releases nothing on a stand-in: try again"
                )
            bases.append(base | {"platform": platform})
    return _index() | {"bases": bases}


def on_aws() -> bool:
    return os.environ.get("REGISTRY", "").endswith((".amazonaws.com", ".amazonaws.com.cn"))


def _pull(reference: str) -> dict[str, Any]:
    for platform in PLATFORMS:
        registryclient.crane("pull", "--format=oci", f"--platform={platform}", reference, str(_folder(platform)))
    labels = {platform: _layout(platform).config["config"].get("Labels", {}) for platform in PLATFORMS}
    bases = [{"platform": platform, **_base(found)} for platform, found in labels.items()]
    return _index() | {"bases": bases}


def _base(labels: Mapping[str, str]) -> dict[str, str]:
    """What the image itself says about its base."""
    prefix = "org.opencontainers.image.base"
    return {"reference": labels.get(f"{prefix}.name", ""), "digest": labels.get(f"{prefix}.digest", "")}


def _index() -> dict[str, Any]:
    """Join the platforms' layouts into one at build/release/image; blobs are linked, not copied."""
    target = state.FOLDER / "image"
    shutil.rmtree(target, ignore_errors=True)
    manifests = []
    for platform in PLATFORMS:
        layout = _layout(platform)
        shutil.copytree(layout.path / "blobs", target / "blobs", copy_function=_link, dirs_exist_ok=True)
        system, _, machine = platform.partition("/")
        size = layout.blob(layout.digest).stat().st_size
        media_type = layout.manifest["mediaType"]
        described = {"mediaType": media_type, "digest": layout.digest, "size": size}
        manifests.append(described | {"platform": {"architecture": machine, "os": system}})
    content = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).encode()
    digest = hashlib.sha256(content).hexdigest()
    (target / "blobs/sha256" / digest).write_bytes(content)
    top = {"mediaType": INDEX, "digest": f"sha256:{digest}", "size": len(content)}
    (target / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
    (target / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    platforms = {
        platform: {"digest": layout.digest, "size": sum(int(layer["size"]) for layer in layout.layers)}
        for platform in PLATFORMS
        for layout in [_layout(platform)]
    }
    return {"digest": f"sha256:{digest}", "platforms": platforms}


def _link(source: str, target: str) -> None:
    with suppress(FileExistsError):  # both platforms have the layers of code
        os.link(source, target)


def _folder(platform: str) -> Path:
    """Where a platform's layout is left."""
    return state.FOLDER / platform.replace("/", "-")


def _layout(platform: str) -> Layout:
    return Layout.read(_folder(platform))


def layouts() -> dict[str, Path]:
    """Folder of each platform's OCI layout, after `build`."""
    return {platform: _folder(platform) for platform in PLATFORMS}


def sbom(platform: str) -> Path:
    """Where `scan` leaves a platform's SBOM."""
    return state.FOLDER / f"{platform.replace('/', '-')}.cdx.json"
