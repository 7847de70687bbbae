"""OCI image layouts: what BuildKit writes, what it takes as a base, and what containerd and Docker import."""

import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Json = dict[str, Any]
INDEX = "application/vnd.oci.image.index.v1+json"  # several images, one for each platform


@dataclass(frozen=True)
class Layout:
    """An OCI image layout (a directory) that holds one image, and the digest (`sha256:…`) of its manifest."""

    path: Path
    digest: str

    @classmethod
    def read(cls, path: Path) -> "Layout":
        """Open the layout in a directory."""
        [manifest] = json.loads((path / "index.json").read_bytes())["manifests"]
        return cls(path, manifest["digest"])

    def blob(self, digest: str) -> Path:
        """Return the file of a blob, by its digest (`sha256:…`)."""
        return self.path / "blobs" / digest.replace(":", "/")

    @property
    def manifest(self) -> Json:
        """The image's manifest: its configuration and its layers."""
        return dict(json.loads(self.blob(self.digest).read_bytes()))

    @property
    def config(self) -> Json:
        """The image's configuration, with what a container runs under `config`."""
        return dict(json.loads(self.blob(self.manifest["config"]["digest"]).read_bytes()))

    @property
    def layers(self) -> list[Json]:
        """Descriptors of the layers, lowest first: digest, size (compressed bytes), mediaType."""
        return list(self.manifest["layers"])

    def archive(self, target: Path, reference: str) -> Path:
        """Write one tar that `ctr images import` and `docker load` both read, with the image named `reference`."""
        manifest = self.manifest
        [index] = json.loads((self.path / "index.json").read_bytes())["manifests"]
        index["annotations"] = {
            "io.containerd.image.name": reference,
            "org.opencontainers.image.ref.name": reference.rpartition(":")[2],
        }
        files = {
            "oci-layout": {"imageLayoutVersion": "1.0.0"},
            "index.json": {"schemaVersion": 2, "manifests": [index]},
            "manifest.json": [
                {
                    "Config": _inside(manifest["config"]),
                    "RepoTags": [reference],
                    "Layers": [_inside(layer) for layer in manifest["layers"]],
                }
            ],
        }
        blobs = {self.digest, *(item["digest"] for item in [manifest["config"], *manifest["layers"]])}
        unfinished = target.with_name(f".{target.name}.unfinished")
        with tarfile.open(unfinished, "w") as tar:
            for name, value in files.items():
                data = json.dumps(value, sort_keys=True).encode()
                tar.addfile(_entry(name, len(data)), io.BytesIO(data))
            for digest in sorted(blobs):
                path = self.blob(digest)
                with path.open("rb") as blob:
                    tar.addfile(_entry(_inside({"digest": digest}), path.stat().st_size), blob)
        return unfinished.rename(target)


def _inside(descriptor: Json) -> str:
    return "blobs/" + str(descriptor["digest"]).replace(":", "/")


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size = size
    return entry
