"""The image into the registry, once: what a tag names never changes, so a second run finds it and pushes nothing.

The tag comes last. What carries it is whole and signed, and an interrupted push is simply done again.
"""

import json

from flaskapp_deploy.release import build, cosign, provenance, registryclient, state
from flaskapp_deploy.shell import say


def push() -> None:
    """Push the index of build/release/image, sign it, attach SBOMs and provenance, and name it by its version."""
    known = state.need("version", "build", "scan")
    image = known["build"]
    tagged, reference = f"{image['repository']}:{image['tag']}", f"{image['repository']}@{image['digest']}"
    statement = state.FOLDER / "provenance.json"
    statement.write_text(json.dumps(provenance.predicate(known), indent=2) + "\n")
    published = registryclient.digest(tagged)
    if published and published != image["digest"]:
        raise registryclient.moved(tagged)
    if published:
        say(f"{tagged} is there already: nothing is pushed")
    else:
        new = registryclient.push(state.FOLDER / "image", reference)
        cosign.sign(reference)
        cosign.attest(reference, cosign.PROVENANCE, statement)
        for platform, built in image["platforms"].items():
            cosign.attest(f"{image['repository']}@{built['digest']}", cosign.SBOM, build.sbom(platform))
        registryclient.crane("tag", reference, image["tag"])
        say(f"pushed {tagged} ({image['digest']}, {new / 1024:.0f} KiB new), signed, with SBOMs and provenance")
    state.add(image=image | {"reference": reference})
