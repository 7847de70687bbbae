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
        manifest, index = self.manifest, json.loads((self.path / "index.json").read_bytes())
        names = {
            "io.containerd.image.name": reference,
            "org.opencontainers.image.ref.name": reference.rpartition(":")[2],
        }
        index["manifests"][0]["annotations"] = names
        config, *layers = (
            str(self.blob(item["digest"]).relative_to(self.path)) for item in (manifest["config"], *manifest["layers"])
        )
        docker = [{"Config": config, "RepoTags": [reference], "Layers": layers}]
        unfinished = target.with_name(f".{target.name}.unfinished")
        with tarfile.open(unfinished, "w") as tar:
            for name, value in {"index.json": index, "manifest.json": docker}.items():
                data = json.dumps(value, sort_keys=True).encode()
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
            for name in ("oci-layout", "blobs"):
                tar.add(self.path / name, name)
        return unfinished.rename(target)
