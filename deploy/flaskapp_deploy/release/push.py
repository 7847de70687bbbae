"""The image into the registry, once: what a tag names never changes, so a second run finds it and pushes nothing.

The tag comes last. What carries it is whole and signed, and an interrupted push is simply done again.
"""

from dataclasses import replace

from flaskapp_deploy.release import build, cosign, provenance, registryclient, state
from flaskapp_deploy.shell import DeployError, say


def push() -> None:
    """Push the index of build/release/image, sign it, attach SBOMs and provenance, and name it by its version."""
    release = state.load()
    image, scanned = state.require("build", release.build), state.require("scan", release.scan)
    tagged = f"{image.repository}:{release.version}"
    statement = state.FOLDER / "provenance.json"
    statement.write_text(provenance.predicate(release, image, scanned))
    published = registryclient.find_digest(tagged)
    if published and published != image.digest:
        raise DeployError(f"{tagged} names another image, and tags are immutable: raise the version in Chart.yaml")
    if published:
        say(f"{tagged} is there already: nothing is pushed")
    else:
        new = registryclient.push(state.FOLDER / "image", image.reference)
        cosign.sign(image.reference)
        cosign.attest(image.reference, cosign.PROVENANCE, statement)
        for platform, digest in image.platforms.items():
            cosign.attest(f"{image.repository}@{digest}", cosign.SBOM, build.sbom(platform))
        registryclient.crane("tag", image.reference, release.version)
        say(f"pushed {tagged} ({image.digest}, {new / 1024:.0f} KiB new), signed, with SBOMs and provenance")
    state.save(replace(release, image=image))
