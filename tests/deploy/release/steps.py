"""What the tests of single steps share: a checkout that a build has left something in, and the commands run there."""

import base64
import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flaskapp_deploy.rehearsal.registry import Registry
from flaskapp_deploy.resources import ROOT

Run = Callable[..., "subprocess.CompletedProcess[str]"]
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
COMMIT = {"version": "1.0.0", "chart_version": "1.0.0", "commit": "0" * 40, "committed_at": "", "tag": "", "source": ""}
PASSWORD = "a password of the test's"


def clone(target: Path) -> Path:
    """The last commit, checked out."""
    command = ["git", "-c", "advice.detachedHead=false", "clone", "--quiet", str(ROOT), str(target)]
    subprocess.run(command, check=True)
    return target


def runner(checkout: Path, ecr: Registry, signing: Path, home: Path) -> Run:
    """Run a command of the pipeline in a checkout, logged in to the registry, with a key and with no cluster."""

    def run(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        environment = os.environ | {
            "REGISTRY": ecr.address,
            "IMAGE_REPOSITORY": "flaskapp",
            "CHART_REPOSITORY": "charts/flaskapp",
            "COSIGN_KEY": str(signing / "cosign.key"),
            "COSIGN_PASSWORD": PASSWORD,
            "SSL_CERT_FILE": str(ecr.certificates),
            "DOCKER_CONFIG": str(docker_config(ecr, home / "docker")),
            "KUBECONFIG": str(home / "no-kubeconfig"),
            "PYTHONPATH": f"{checkout}/deploy:{checkout}/src:{checkout}",  # the checkout's own command
        }
        command = [sys.executable, "-m", "flaskapp_deploy", *arguments]
        environment |= variables
        return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=300)

    return run


def docker_config(ecr: Registry, directory: Path, seconds: float = 3600) -> Path:
    """A folder for DOCKER_CONFIG, with a login that ends after `seconds`."""
    login = base64.b64encode(f"AWS:{ecr.token(seconds)}".encode()).decode()
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps({"auths": {ecr.address: {"auth": login}}}))
    return directory


def built(checkout: Path, address: str, content: str, begun: dict[str, Any] | None = None) -> dict[str, Any]:
    """Leave what `version`, `build` and `scan` leave, with an image of one small layer for two platforms."""
    release = dict(begun or COMMIT)
    folder = checkout / "build/release"
    blobs = folder / "image/blobs/sha256"
    blobs.mkdir(parents=True, exist_ok=True)

    def blob(data: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    def document(value: dict[str, Any], media_type: str) -> dict[str, Any]:
        return blob(json.dumps(value).encode(), media_type)

    tar = archive(content.encode())
    # Not compressed, so that what is changed in the file is changed in the layer.
    layer = blob(gzip.compress(tar, 0, mtime=0), "application/vnd.oci.image.layer.v1.tar+gzip")
    platforms, manifests = {}, []
    for machine in ("arm64", "amd64"):
        rootfs = {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}"]}
        config = {"architecture": machine, "os": "linux", "rootfs": rootfs, "config": {}}
        described = document(config, "application/vnd.oci.image.config.v1+json")
        image = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": [layer]}
        manifest = document(image, MANIFEST) | {"platform": {"architecture": machine, "os": "linux"}}
        manifests.append(manifest)
        platforms[f"linux/{machine}"] = manifest["digest"]
        sbom = {"bomFormat": "CycloneDX", "specVersion": "1.6", "components": []}
        (folder / f"linux-{machine}.cdx.json").write_text(json.dumps(sbom))
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).encode()
    (folder / "image/index.json").write_bytes(index)
    (folder / "image/oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    image = {"repository": f"{address}/flaskapp", "digest": f"sha256:{hashlib.sha256(index).hexdigest()}"}
    release |= {"build": image | {"platforms": platforms, "bases": []}, "scan": "passed"}
    write(checkout, release)
    return release


def archive(content: bytes) -> bytes:
    """A tar of one file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo("content")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def read(checkout: Path) -> dict[str, Any]:
    return dict(json.loads((checkout / "build/release/release.json").read_text()))


def reference(artifact: dict[str, str]) -> str:
    """What release.json has of an image or a chart, as one pulls it."""
    return f"{artifact['repository']}@{artifact['digest']}"


def write(checkout: Path, release: dict[str, Any]) -> None:
    (checkout / "build/release/release.json").write_text(json.dumps(release))


def refused(result: "subprocess.CompletedProcess[str]", *words: str) -> None:
    """It failed, in one line that says this."""
    assert result.returncode != 0, result.stdout + result.stderr
    [line] = result.stderr.strip().splitlines()[-1:]
    assert line.startswith("error: "), result.stderr
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in line, line
