"""The image into the registry, once: what a tag names never changes, so a second run finds it and pushes nothing."""

from pipeline import registryclient, state
from tools import say


def push() -> None:
    """Push the index of build/release/image under its version, sign it, and attach SBOMs and provenance."""
    known = state.need("version", "build")
    image = known["build"]
    tagged, reference = f"{image['repository']}:{image['tag']}", f"{image['repository']}@{image['digest']}"
    if registryclient.digest(tagged) == image["digest"]:
        say(f"{tagged} is there already: nothing is pushed")
    else:
        registryclient.crane("push", str(state.FOLDER / "image"), tagged)
        say(f"pushed {tagged} ({image['digest']})")
    state.add(image=image | {"reference": reference})
