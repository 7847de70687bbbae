"""charts/postgresql's values as YAML files write them: quantities, emptied sections, odd names, nulls."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from flaskapp_deploy import programs
from tests.chart.render import RenderError, run_helm

NAMED = "auth: {existingSecret: database}\n"


class Strict(yaml.SafeLoader):
    """Refuses a key that is there twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key is there twice: {keys}"
        return super().construct_mapping(node, deep)


def documents(tmp_path: Path, text: str, *arguments: str, name: str = "web") -> list[dict[str, Any]]:
    """Render values as two files, the way a base and an overlay are, and load them strictly."""
    base, overlay = tmp_path / "base.yaml", tmp_path / "overlay.yaml"
    base.write_text(NAMED)
    overlay.write_text(text)
    options = ["--values", str(base), "--values", str(overlay), *arguments]
    return list(yaml.load_all(run_helm("template", name, "charts/postgresql", *options), Strict))


def only(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    return next(item for item in objects if item["kind"] == kind)


@pytest.mark.parametrize(
    ("memory", "buffers"),
    [
        ("0.5Gi", 128), (".5Gi", 128), ("512Mi", 128), ("512e6", 122), ('"512e6"', 122), ("5.12E+8", 122),
        ("1.5G", 357), ("1073741824", 256),
        ("128974848000m", 30), ("1500000k", 357), ("0.25Ti", 65536), ("1E", 238418579101),
    ],
)  # fmt: skip
def test_memory_in_every_form(tmp_path: Path, memory: str, buffers: int) -> None:
    objects = documents(tmp_path, f"primary: {{resources: {{limits: {{memory: {memory}}}}}}}")
    conf = only(objects, "ConfigMap")["data"]["postgresql.conf"]
    assert re.findall("shared_buffers = '(.*)MB'", conf) == [str(buffers)]
    [server, _] = only(objects, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    assert float(re.sub("[A-Za-z]+$", "", str(server["resources"]["limits"]["memory"]))) > 0


@pytest.mark.parametrize("memory", ["5GB", '"1,5Gi"', '"much"', '"512 Mi"', "-1Gi"])
def test_what_is_no_quantity_is_refused(tmp_path: Path, memory: str) -> None:
    with pytest.raises(RenderError, match="limits/memory"):
        documents(tmp_path, f"primary: {{resources: {{limits: {{memory: {memory}}}}}}}")


@pytest.mark.parametrize(
    "section",
    ["nameOverride", "commonLabels", "image", "image.tag", "auth.secretKeys", "auth.separateOwner", "extensions",
     "initSQL", "maxConnections", "configuration", "tls", "primary", "primary.persistence", "primary.persistence.keep",
     "primary.resources", "primary.podSecurityContext", "primary.containerSecurityContext", "primary.podSpec", "roles",
     "service", "global"],
)  # fmt: skip
def test_an_emptied_section_is_its_default(tmp_path: Path, section: str) -> None:
    text = "null"
    for key in reversed(section.split(".")):
        text = f"{{{key}: {text}}}"
    assert documents(tmp_path, text) == documents(tmp_path, "{}")


def test_null_removes_what_kubernetes_reads(tmp_path: Path) -> None:
    text = "primary: {podSecurityContext: {runAsUser: null}, resources: {limits: null}}"
    spec = only(documents(tmp_path, text), "StatefulSet")["spec"]["template"]["spec"]
    assert spec["securityContext"].get("runAsUser") is None
    assert spec["securityContext"]["fsGroup"] == 999
    assert not spec["containers"][0]["resources"].get("limits")


@pytest.mark.parametrize("name", ["true", "null", "y", "on", "e1", "123", "1e3", "0x1f"])
def test_names_that_yaml_reads_as_something_else(tmp_path: Path, name: str) -> None:
    text = f"""
    nameOverride: {name!r}
    fullnameOverride: {"n" if name[0].isdigit() else name!r}
    auth: {{existingSecret: {name!r}}}
    tls: {{existingSecret: {name!r}}}
    commonLabels: {{a: {name!r}}}
    primary: {{priorityClassName: {name!r}, podLabels: {{b: {name!r}}}, podAnnotations: {{c: {name!r}}}}}
    service: {{annotations: {{d: {name!r}}}}}
    image: {{pullSecrets: [{{name: {name!r}}}], tag: {name!r}}}
    """
    objects = documents(tmp_path, text, name=name)
    for item in objects:
        metadata = item["metadata"]
        assert {type(value) for value in [metadata["name"], *metadata["labels"].values()]} == {str}
        assert metadata["labels"]["app.kubernetes.io/instance"] == name
    template = only(objects, "StatefulSet")["spec"]["template"]
    assert template["metadata"]["labels"]["b"] == template["metadata"]["annotations"]["c"] == name
    assert template["spec"]["priorityClassName"] == name
    assert {volume["secret"]["secretName"] for volume in template["spec"]["volumes"] if "secret" in volume} == {name}


def test_helm_3_agrees(tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(
        """
        auth: {existingSecret: a, password: null}
        primary: null
        service: {port: null}
        extensions: [pg_trgm]
        configuration: {shared_buffers: 1000000000, wal_compression: null}
        commonLabels: {a: 1e+06, b: true, c: null}
        """
    )

    def objects(program: str) -> list[str]:
        text = run_helm("template", "web", "charts/postgresql", "--values", str(values), program=program)
        return sorted(map(str, yaml.load_all(text, Strict)))

    assert objects(str(programs.binaries("helm3") / "helm")) == objects("helm")
