"""Whether a release is what this repository's pipeline made: chart, image, SBOMs and provenance, all by one key."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from flaskapp_deploy.release import cosign, package, provenance, registryclient, state
from flaskapp_deploy.shell import DeployError, say


def verify(chart: str = "", key: str = "") -> None:
    """Check a chart in the registry, by its digest, and everything that it leads to.

    Args:
        chart: HOST/REPOSITORY@sha256:…; the one of release.json where it is empty, which must then agree with it.
        key: The public key, as a file or in KMS; that of COSIGN_KEY where it is empty.
    """
    release = None if chart else state.load()
    pushed = state.require("push", release.image) if release else None
    chart = state.require("package", release.chart).reference if release else chart
    if "@sha256:" not in chart:
        raise DeployError(f"{chart} has no digest: what a name leads to may change; give HOST/REPOSITORY@sha256:…")
    with TemporaryDirectory(prefix="flaskapp-verify-") as folder:
        key = key or cosign.write_public_key(Path(folder))
        commits = {check(chart, key)}
        image = image_of(chart)
        if pushed and image != pushed.reference:
            raise DeployError(f"{chart} runs {image}, but {pushed.reference} was pushed")
        commits |= {check(image, key)} | ({release.commit} if release else set())
        if len(commits) > 1:
            raise DeployError(f"{chart} and its image are not of one commit: {', '.join(sorted(commits))}")
        check_content(image, key)
    say(f"verified: {chart} runs {image}, both built from {commits.pop()} and signed")


def check_content(image: str, key: str) -> None:
    """Fail when a manifest or layer in the registry is not what its digest says, or a platform has no signed SBOM."""
    try:
        registryclient.crane("validate", "--remote", image)
    except DeployError as error:
        raise DeployError(f"{image} is not intact in the registry: {error}") from error
    for item in json.loads(registryclient.crane("manifest", image))["manifests"]:
        cosign.read_statements(f"{image.partition('@')[0]}@{item['digest']}", cosign.SBOM, key)
        say(f"{item['platform']['os']}/{item['platform']['architecture']}: its SBOM is signed")


def check(reference: str, key: str) -> str:
    """Check signature and provenance of one artifact; return the commit that it was built from."""
    cosign.verify(reference, key)
    [commit, *others] = set(map(provenance.commit, cosign.read_statements(reference, cosign.PROVENANCE, key)))
    if others:
        raise DeployError(f"{reference} is said to be built from {commit} and from {others[0]}")
    return commit


def image_of(chart: str) -> str:
    """Return the image, by its digest, that a chart's own values name."""
    block = yaml.safe_load(package.helm("show", "values", f"oci://{chart}"))["image"]
    if not str(block.get("digest", "")).startswith("sha256:"):
        raise DeployError(f"{chart} names no image by digest: the pipeline did not package it")
    return f"{block['repository']}@{block['digest']}"
