"""The annotations for Artifact Hub agree with the chart."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
import yaml

from tests.chart.policy import containers, pods
from tests.chart.render import CHARTS, RELEASE_VALUES, ROOT, merged, render, values_of

EVERYTHING = merged(RELEASE_VALUES["everything"], {"global": {"imageRegistry": ""}})
VALUES = {"flaskapp": EVERYTHING, "postgresql": {"auth": {"existingSecret": "database"}}}
KINDS = {"added", "changed", "deprecated", "removed", "fixed", "security"}
REPOSITORY = "https://github.com/example/flaskapp"


def annotations_of(chart: str) -> dict[str, Any]:
    """Return annotations by name without the prefix; those that hold YAML are parsed."""
    annotations = values_of(CHARTS / chart / "Chart.yaml")["annotations"]
    assert all(name.startswith("artifacthub.io/") and isinstance(text, str) for name, text in annotations.items())
    plain = {name.removeprefix("artifacthub.io/"): text for name, text in annotations.items()}
    return plain | {name: yaml.safe_load(plain[name]) for name in ("images", "links", "changes")}


@pytest.mark.parametrize("chart", VALUES)
def test_annotations(chart: str) -> None:
    annotations, metadata = annotations_of(chart), values_of(CHARTS / chart / "Chart.yaml")
    assert annotations["license"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"]
    assert annotations["prerelease"] == str("-" in metadata["version"]).lower()
    assert "signKey" not in annotations
    assert {change["kind"] for change in annotations["changes"]} <= KINDS
    assert all(len(change["description"]) > 10 for change in annotations["changes"])
    assert metadata["home"] == REPOSITORY
    for link in annotations["links"]:
        assert (ROOT / link["url"].removeprefix(f"{REPOSITORY}/blob/main/")).is_file(), link["url"]


@pytest.mark.parametrize("chart", VALUES)
def test_images_are_the_ones_that_are_rendered(chart: str) -> None:
    specs = [spec for _, spec in pods(render(chart, VALUES[chart]))]
    rendered = {container["image"] for spec in specs for container in containers(spec)}
    own = {image for image in rendered if image.startswith("registry.example.com/")}
    assert {item["image"] for item in annotations_of(chart)["images"]} == rendered - own


def test_the_changelog_and_the_way_to_upgrade_have_this_version() -> None:
    version = values_of(CHARTS / "flaskapp/Chart.yaml")["version"]
    assert re.search(rf"^## {re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert re.search(rf"^## {re.escape(version)}$", (CHARTS / "UPGRADING.md").read_text(), re.MULTILINE)
