"""The chart into the registry, once, with the image's digest in it; then what comes back is compared with what went."""

import difflib
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from flaskapp_deploy.release import chart, cosign, registryclient, state
from flaskapp_deploy.release.config import Release
from flaskapp_deploy.shell import DeployError, say


def package(release: Release) -> None:
    """Package and push the chart, pull it back by its digest, and render both.

    Raises:
        DeployError: the repository isn't the chart's, its version holds another content, or the renders differ.
    """
    known = state.need("version", "image", "scan")
    address = registryclient.repository("CHART_REPOSITORY")
    if address.rpartition("/")[2] != release.name:
        raise DeployError(
            f"CHART_REPOSITORY leads to {address}, but helm pushes a chart under its name: end it in /{release.name}"
        )
    prepared = chart.prepare(release, known, known["image"], state.FOLDER / "chart")
    archive = chart.package(prepared, state.FOLDER)
    tagged = f"{address}:{known['chart_version']}"
    digest = registryclient.digest(tagged)
    if digest:
        say(f"{tagged} is there already ({digest[:19]}…): nothing is pushed")
    else:
        helm("push", str(archive), f"oci://{address.rpartition('/')[0]}")
        digest = registryclient.digest(tagged)
        say(f"pushed {tagged} ({digest})")
    pulled = pull(f"{address}@{digest}", state.FOLDER / "pulled")
    ours, theirs = chart.render(release, prepared), chart.render(release, pulled)
    (state.FOLDER / "rendered.yaml").write_text(theirs)
    if difference := list(difflib.unified_diff(theirs.splitlines(), ours.splitlines(), "registry", "commit", n=0)):
        (state.FOLDER / "difference.diff").write_text("\n".join(difference) + "\n")
        raise DeployError(
            f"{tagged} renders otherwise than this commit's chart (build/release/difference.diff):"
            " raise the version in Chart.yaml"
        )
    if content(f"{address}@{digest}") != f"sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}":
        raise DeployError(
            f"{tagged} is not this commit's chart, though it renders alike: raise the version in Chart.yaml"
        )
    say("the chart that was pulled back by its digest is this commit's, and renders what this commit's does")
    sign(f"{address}@{digest}")
    state.add(chart=described(release, address, known["chart_version"], digest))


def described(release: Release, address: str, version: str, digest: str) -> dict[str, Any]:
    return {"name": release.name, "version": version, "digest": digest, "reference": f"{address}@{digest}"}


def content(reference: str) -> str:
    """The digest of the archive in a chart's manifest."""
    [layer] = json.loads(registryclient.crane("manifest", reference))["layers"]
    return str(layer["digest"])


def sign(reference: str) -> None:
    """Sign a chart that is known to be this commit's, and say how it came to be; once."""
    try:
        cosign.statements(reference, cosign.PROVENANCE, cosign.public_key(state.FOLDER))
        cosign.verify(reference, str(state.FOLDER / "cosign.pub"))
    except cosign.SignatureError:
        cosign.sign(reference)
        cosign.attest(reference, cosign.PROVENANCE, state.FOLDER / "provenance.json")


def pull(reference: str, folder: Path) -> Path:
    """The chart's archive by its digest."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    helm("pull", f"oci://{reference}", "--destination", str(folder))
    [archive] = folder.glob("*.tgz")
    return archive


def helm(*arguments: str) -> str:
    """helm with the login that crane and cosign have, too.

    Raises:
        DeployError: the registry refused; the message says what to do.
    """
    result = chart.run(*arguments, "--registry-config", login())
    if result.returncode:
        raise registryclient.refusal(f"helm {arguments[0]}", result.stderr)
    return result.stdout


def login() -> str:
    return str(Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json")
