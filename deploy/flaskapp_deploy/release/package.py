"""The chart into the registry, once, with the image's digest in it; then what comes back is compared with what went."""

import difflib
import os
import shutil
from dataclasses import replace
from pathlib import Path

from flaskapp_deploy.release import chart, cosign, registryclient, state
from flaskapp_deploy.release.config import ReleaseConfig
from flaskapp_deploy.release.state import Artifact
from flaskapp_deploy.shell import DeployError, say


def package(config: ReleaseConfig) -> None:
    """Package and push the chart, pull it back by its digest, and fail where its version holds another content."""
    release = state.load()
    image = state.require("push", release.image)
    address = read_address(config)
    prepared = chart.prepare(config, release, image, state.FOLDER / "chart")
    archive = chart.package(prepared, state.FOLDER)
    tagged = f"{address}:{release.chart_version}"
    if digest := registryclient.find_digest(tagged):
        say(f"{tagged} is there already ({digest[:19]}…): nothing is pushed")
    else:
        helm("push", str(archive), f"oci://{address.rpartition('/')[0]}")
        digest = registryclient.find_digest(tagged)
        say(f"pushed {tagged} ({digest})")
    artifact = Artifact(address, digest)
    folder = state.FOLDER / "pulled"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    helm("pull", f"oci://{artifact.reference}", "--destination", str(folder))
    [pulled] = folder.glob("*.tgz")
    rendered = chart.render(config, pulled)
    (state.FOLDER / "rendered.yaml").write_text(rendered)
    if pulled.read_bytes() != archive.read_bytes():
        lines = difflib.unified_diff(rendered.splitlines(), chart.render(config, prepared).splitlines(), n=0)
        (state.FOLDER / "difference.diff").write_text("\n".join(lines) + "\n")
        raise DeployError(
            f"{tagged} is not this commit's chart (build/release/difference.diff): raise the version in Chart.yaml"
        )
    say("the chart that was pulled back by its digest is this commit's, byte by byte")
    _sign(artifact.reference)
    state.save(replace(release, chart=artifact))


def preflight(config: ReleaseConfig) -> None:
    """Fail where `push` or `package` would: a setting, the login, a repository that isn't there."""
    addresses = [registryclient.read_repository("IMAGE_REPOSITORY"), read_address(config)]
    cosign.read_key()
    for address in addresses:
        registryclient.find_digest(f"{address}:{state.load().version}")


def read_address(config: ReleaseConfig) -> str:
    """Read HOST/REPOSITORY of the chart; fail where helm would push it elsewhere."""
    address = registryclient.read_repository("CHART_REPOSITORY")
    if address.rpartition("/")[2] != config.name:
        raise DeployError(
            f"CHART_REPOSITORY leads to {address}, but helm pushes a chart under its name: end it in /{config.name}"
        )
    return address


def login() -> str:
    """Return the file that holds the login of crane and cosign, for helm."""
    return str(Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json")


def helm(*arguments: str) -> str:
    """Run helm with that login; return what it printed."""
    return registryclient.run("helm", *arguments, "--registry-config", login()).stdout


def _sign(reference: str) -> None:
    """Sign a chart that is known to be this commit's, and say how it came to be; once."""
    try:
        cosign.read_statements(reference, cosign.PROVENANCE, cosign.write_public_key(state.FOLDER))
        cosign.verify(reference, str(state.FOLDER / "cosign.pub"))
    except cosign.SignatureError:
        cosign.sign(reference)
        cosign.attest(reference, cosign.PROVENANCE, state.FOLDER / "provenance.json")
