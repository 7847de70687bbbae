"""kubeconform with the schemas of any supported Kubernetes version and of the chart's custom resources."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp

from tests.chart import crds
from tests.chart.render import ROOT

OLDEST, *BETWEEN, NEWEST = [f"1.{minor}.0" for minor in range(30, 38)]
PACKAGED = Path(next(iter(find_spec("kubernetes_validate").submodule_search_locations)))  # type: ignore[union-attr, arg-type]


@cache
def folder(version: str) -> Path:
    """Write a version's strict schemas into build/ as kubeconform reads them, with references by file name."""
    target = ROOT / "build" / f"kubernetes-schemas-{metadata.version('kubernetes-validate')}" / version
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    half = Path(mkdtemp(dir=target.parent))
    for source in (PACKAGED / "kubernetes-json-schema" / f"v{version}-local-strict").glob("*.json"):
        schema = json.loads(source.read_text().replace('"/api/_definitions.json', '"_definitions.json'))
        schema.pop("$id", None)
        (half / source.name).write_text(json.dumps(schema))
    half.replace(target)
    return target


def kubeconform(text: str, version: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Each of its workers would read the schemas.
    command = ["kubeconform", "-strict", "-summary", "-n=1", "-kubernetes-version", version]
    for schemas in (folder(version), crds.folder()):
        command += ["-schema-location", f"{schemas}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"]
    return subprocess.run(
        [*command, *arguments], input=text, check=False, capture_output=True, text=True, timeout=60
    )  # fmt: skip
