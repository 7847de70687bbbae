"""What is released is what was signed: every way to put something else in its place is refused, on a real registry."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flaskapp_deploy import programs
from flaskapp_deploy.rehearsal import registry
from flaskapp_deploy.rehearsal.registry import Registry
from flaskapp_deploy.release import cosign
from tests.deploy.release import steps
from tests.deploy.release.steps import Run, built, read, reference, refused, write

CONTENT = "what the image holds\n" * 100


class Published:
    """An image and a chart that the pipeline pushed and signed."""

    def __init__(self, checkout: Path, run: Run, ecr: Registry) -> None:
        self.checkout, self.run, self.ecr = checkout, run, ecr
        assert run("version").returncode == 0
        built(checkout, ecr.address, CONTENT, read(checkout))
        for step in ("push", "package", "verify"):
            succeeded(run(step))
        self.release = read(checkout)
        self.chart, self.image = reference(self.release["chart"]), reference(self.release["image"])

    def blob(self, digest: str) -> Path:
        """Where the registry keeps it."""
        value = digest.partition(":")[2]
        return self.ecr.home / "storage/docker/registry/v2/blobs/sha256" / value[:2] / value / "data"

    def layer(self, reference: str) -> str:
        return str(self.manifest(reference)["layers"][0]["digest"])

    def manifest(self, reference: str) -> dict[str, Any]:
        return dict(json.loads(self.blob(reference.partition("@")[2]).read_text()))

    def write(self, **changes: Any) -> None:
        """Let release.json say something else."""
        write(self.checkout, self.release | changes)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, ecr: Registry, signing: Path) -> Published:
    home = tmp_path_factory.mktemp("published")
    checkout = steps.clone(home / "checkout")
    return Published(checkout, steps.runner(checkout, ecr, signing, home), ecr)


@pytest.fixture
def other_key(tmp_path: Path) -> Path:
    cosign.make_key(tmp_path, steps.PASSWORD)
    return tmp_path


def succeeded(result: "subprocess.CompletedProcess[str]") -> str:
    assert result.returncode == 0, result.stderr
    return result.stderr


@contextmanager
def tampered(path: Path, old: bytes, new: bytes) -> Iterator[None]:
    """The registry's file with other bytes, of the same number."""
    before = path.read_bytes()
    assert old in before
    path.write_bytes(before.replace(old, new, 1))
    try:
        yield
    finally:
        path.write_bytes(before)


def test_a_release_is_verified_by_its_chart_and_the_public_key_alone(published: Published, signing: Path) -> None:
    message = succeeded(published.run("verify", published.chart, "--key", str(signing / "cosign.pub"), COSIGN_KEY=""))
    assert f"runs {published.image}, both built from {published.release['commit']} and signed" in message
    assert "linux/arm64: its SBOM is signed" in message
    assert "linux/amd64: its SBOM is signed" in message


def test_what_is_attached_are_oci_referrers(published: Published) -> None:
    kept = list((published.ecr.home / "referrers").rglob("*.json"))
    # Signature and provenance of the index and of the chart; an SBOM of each platform.
    assert sorted(len(json.loads(path.read_text())) for path in kept) == [1, 1, 2, 2]


def test_a_second_run_attaches_nothing(published: Published) -> None:
    before = {path: path.read_bytes() for path in (published.ecr.home / "referrers").rglob("*.json")}
    assert "nothing is pushed" in succeeded(published.run("push"))
    assert "nothing is pushed" in succeeded(published.run("package"))
    published.write()
    assert before == {path: path.read_bytes() for path in (published.ecr.home / "referrers").rglob("*.json")}


def test_the_provenance_names_commit_and_build(published: Published) -> None:
    document = json.loads((published.checkout / "build/release/provenance.json").read_text())
    source = document["buildDefinition"]["resolvedDependencies"][0]
    assert source["digest"] == {"gitCommit": published.release["commit"]}
    assert document["buildDefinition"]["externalParameters"]["version"] == published.release["version"]


def test_a_tampered_layer(published: Published) -> None:
    layer = next(iter(published.release["image"]["platforms"].values()))
    with tampered(published.blob(published.layer(f"@{layer}")), b"image", b"imaGe"):
        refused(published.run("verify"), "not intact in the registry")


def test_a_tampered_image_manifest(published: Published) -> None:
    with tampered(published.blob(published.release["image"]["digest"]), b"arm64", b"ARM64"):
        refused(published.run("verify"), "failed")


def test_a_tampered_chart(published: Published) -> None:
    archive = published.blob(published.layer(published.chart))
    with tampered(archive, archive.read_bytes()[-9:], b"something"):
        refused(published.run("verify"), "helm show failed")


def test_a_chart_that_nobody_signed(published: Published, tmp_path: Path) -> None:
    chart = push_chart(published, "9.9.8", tmp_path)
    refused(published.run("verify", chart), "carries no signature")


def test_a_wrong_signer(published: Published, other_key: Path) -> None:
    refused(published.run("verify", published.chart, "--key", str(other_key / "cosign.pub")), "carries no signature")
    refused(published.run("verify", COSIGN_KEY=str(other_key / "cosign.key")), "carries no signature")


def test_an_image_that_somebody_else_pushed_is_not_released(
    published: Published, ecr: Registry, run: Run, checkout: Path, other_key: Path
) -> None:
    """Under the version that this commit will get, and signed by another key."""
    planted = built(checkout, ecr.address, "planted", steps.COMMIT | {"version": "6.6.6"})
    succeeded(run("push", COSIGN_KEY=str(other_key / "cosign.key")))
    write(checkout, {name: value for name, value in planted.items() if name != "build"})
    refused(run("build"), "carries no signature")


def test_a_chart_that_runs_another_image(published: Published) -> None:
    other = published.release["image"] | {"digest": published.release["image"]["digest"][:-4] + "0000"}
    published.write(image=other)
    refused(published.run("verify"), published.image, reference(other))
    published.write()


def test_another_commit(published: Published) -> None:
    published.write(commit="f" * 40)
    refused(published.run("verify"), "not of one commit", "f" * 40)
    published.write()


def test_a_signed_chart_without_provenance(published: Published, tmp_path: Path, signing: Path) -> None:
    chart = push_chart(published, "9.9.9", tmp_path)
    with environment(published, signing):
        cosign.sign(chart)
    refused(published.run("verify", chart), "carries no attestation")


def test_a_reference_without_a_digest(published: Published) -> None:
    refused(published.run("verify", f"{published.ecr.address}/charts/flaskapp:1.0.0"), "no digest")


def test_without_referrers_api_a_tag_leads_to_what_is_attached(
    tmp_path: Path, signing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the specification has it: sha256-… names the index of an artifact's referrers."""
    monkeypatch.setenv("COSIGN_KEY", str(signing / "cosign.key"))
    monkeypatch.setenv("COSIGN_PASSWORD", steps.PASSWORD)
    with registry.distribution(tmp_path) as address:
        image = built(tmp_path, address, "fallback")["build"]
        target = reference(image)
        crane = str(programs.binaries("pipeline") / "crane")
        subprocess.run([crane, "push", "--index", str(tmp_path / "build/release/image"), target], check=True)
        cosign.sign(target)
        predicate = tmp_path / "predicate.json"
        predicate.write_text('{"bomFormat": "CycloneDX", "specVersion": "1.6", "components": []}')
        cosign.attest(target, cosign.SBOM, predicate)
        cosign.verify(target, str(signing / "cosign.pub"))
        assert len(cosign.read_statements(target, cosign.SBOM, str(signing / "cosign.pub"))) == 1
        listed = subprocess.run([crane, "ls", f"{address}/flaskapp"], check=True, capture_output=True, text=True)
        assert listed.stdout.split() == [image["digest"].replace(":", "-")]


def push_chart(published: Published, version: str, folder: Path) -> str:
    """A chart with the released one's values, pushed by hand."""
    chart = folder / "flaskapp"
    chart.mkdir()
    (chart / "Chart.yaml").write_text(f"apiVersion: v2\nname: flaskapp\nversion: {version}\n")
    (chart / "values.yaml").write_bytes((published.checkout / "build/release/chart/flaskapp/values.yaml").read_bytes())
    helm = str(programs.binaries("chart") / "helm")
    config = str(steps.docker_config(published.ecr, folder / "docker") / "config.json")
    settings = os.environ | {"SSL_CERT_FILE": str(published.ecr.certificates)}
    subprocess.run([helm, "package", str(chart), "--destination", str(folder)], check=True, capture_output=True)
    target = f"oci://{published.ecr.address}/charts"
    command = [helm, "push", str(folder / f"flaskapp-{version}.tgz"), target, "--registry-config", config]
    result = subprocess.run(command, check=True, capture_output=True, text=True, env=settings)
    digest = (result.stdout + result.stderr).partition("Digest: ")[2].split()[0]
    return f"{published.ecr.address}/charts/flaskapp@{digest}"


@contextmanager
def environment(published: Published, signing: Path) -> Iterator[None]:
    """What signing by hand needs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COSIGN_KEY", str(signing / "cosign.key"))
        patch.setenv("COSIGN_PASSWORD", steps.PASSWORD)
        patch.setenv("SSL_CERT_FILE", str(published.ecr.certificates))
        patch.setenv("DOCKER_CONFIG", str(steps.docker_config(published.ecr, signing / "docker")))
        yield
