"""Schemas of the custom resources that the chart can render, from their projects' Go modules, pinned by hash."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from zipfile import ZipFile

import yaml

from tests.chart.render import ROOT


@dataclass(frozen=True)
class Source:
    """A file of a Go module; `digest` is the hash of the whole module, as in go.sum."""

    module: str
    digest: str
    path: str


PROMETHEUS = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
PROMETHEUS_DIGEST = "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s="
CLOUDNATIVEPG = "github.com/cloudnative-pg/cloudnative-pg@v1.28.0"
CLOUDNATIVEPG_DIGEST = "h1:vkv0a0ewDSfJOPJrsyUr4uczsxheReAWf/k171V0Dm0="
SOURCES = {
    "ServiceMonitor": Source(
        PROMETHEUS, PROMETHEUS_DIGEST, "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml"
    ),
    "PodMonitor": Source(
        PROMETHEUS, PROMETHEUS_DIGEST, "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml"
    ),
    "PrometheusRule": Source(
        PROMETHEUS, PROMETHEUS_DIGEST, "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml"
    ),
    "VerticalPodAutoscaler": Source(
        "k8s.io/autoscaler/vertical-pod-autoscaler@v1.5.1",
        "h1:LlVtM3IKqIVHz1ZXC3ahe/mAtDWb7Eob0tyTzqFULqg=",
        "deploy/vpa-v1-crd-gen.yaml",
    ),
    "HTTPRoute": Source(
        "sigs.k8s.io/gateway-api@v1.4.0",
        "h1:ZwlNM6zOHq0h3WUX2gfByPs2yAEsy/EenYJB78jpQfQ=",
        "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",
    ),
    "ExternalSecret": Source(
        "github.com/external-secrets/external-secrets@v1.3.2",
        "h1:u2J8RjlHIeF0oZCqtl92adI/uZWUwOesJIDkfql6LqQ=",
        "config/crds/bases/external-secrets.io_externalsecrets.yaml",
    ),
    "Cluster": Source(CLOUDNATIVEPG, CLOUDNATIVEPG_DIGEST, "config/crd/bases/postgresql.cnpg.io_clusters.yaml"),
    "ScheduledBackup": Source(
        CLOUDNATIVEPG, CLOUDNATIVEPG_DIGEST, "config/crd/bases/postgresql.cnpg.io_scheduledbackups.yaml"
    ),
    "ObjectStore": Source(
        "github.com/cloudnative-pg/plugin-barman-cloud@v0.15.0",
        "h1:gNVytrzzYUE08wxLDrjfJqy1FPPSFkMe1OEr4s4pVI0=",
        "config/crd/bases/barmancloud.cnpg.io_objectstores.yaml",
    ),
}


@cache
def archive(module: str, digest: str) -> ZipFile:
    """Return a module's archive, downloaded once by Go, which verifies it by the checksum database.

    Go does not unpack it, as it refuses modules that require a newer Go.
    """
    environment = os.environ | {"GOFLAGS": "-mod=mod", "GOWORK": "off"}
    command = ["go", "mod", "download", "-json", module]
    result = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, timeout=300)
    document = json.loads(result.stdout or "{}")
    assert "Zip" in document, document.get("Error", result.stderr)
    assert document["Sum"] == digest, f"{module} is {document['Sum']}, not {digest}"
    return ZipFile(document["Zip"])


def read(source: Source) -> str:
    return archive(source.module, source.digest).read(f"{source.module}/{source.path}").decode()


@cache
def definition(kind: str, source: Source | None = None) -> dict[str, Any]:
    """Return the CustomResourceDefinition of a kind."""
    objects = [item for item in yaml.safe_load_all(read(source or SOURCES[kind])) if item]
    [resource] = [item for item in objects if item.get("spec", {}).get("names", {}).get("kind") == kind]
    return dict(resource)


def strict(schema: Any) -> Any:
    """Make a schema refuse unknown keys, which the API server drops silently."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: strict(value) for key, value in schema.items()}
    knows = isinstance(inner.get("properties"), dict) and "type" in inner
    if knows and "additionalProperties" not in inner and not inner.get("x-kubernetes-preserve-unknown-fields"):
        inner["additionalProperties"] = False
    return inner


def schemas(kind: str, source: Source | None = None) -> dict[str, dict[str, Any]]:
    """Return the strict schema of each version of a kind."""
    by_version = {}
    for version in definition(kind, source)["spec"]["versions"]:
        schema = strict(version["schema"]["openAPIV3Schema"])
        # Every object has metadata, which no definition describes.
        schema["properties"] |= {"metadata": {"type": "object"}}
        by_version[version["name"]] = schema
    return by_version


@cache
def folder() -> Path:
    """Write the schemas into build/ as kubeconform reads them, KIND-GROUP-VERSION.json, and return the folder."""
    key = sha256((repr(SOURCES) + Path(__file__).read_text()).encode()).hexdigest()[:8]
    target = ROOT / "build" / f"crd-schemas-{key}"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    half = Path(mkdtemp(dir=target.parent))
    for kind in SOURCES:
        group = definition(kind)["spec"]["group"].split(".")[0]
        for version, schema in schemas(kind).items():
            (half / f"{kind.lower()}-{group}-{version}.json").write_text(json.dumps(schema))
    half.replace(target)
    return target
