"""What the smoke test takes from the rendered chart; tests/deploy/rehearsal runs it on an image."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from flaskapp_deploy.release import chart, config, smoke
from flaskapp_deploy.resources import CHART
from flaskapp_deploy.shell import DeployError
from tests.chart.render import run_helm

WORKER = {"components": {"a-worker": {"command": ["python", "-m", "worker"], "port": 9000}}}


@pytest.fixture(scope="module", autouse=True)
def _dependency() -> None:
    run_helm("dependency", "build", "--skip-refresh", "charts/flaskapp")


def rendered(folder: Path, values: dict[str, Any]) -> list[Any]:
    """The objects of a release with these values."""
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump({"image": {"repository": "shop", "tag": "1"}} | values))
    release = replace(config.load(), release_values=(file,))
    return [item for item in yaml.safe_load_all(chart.render(release, CHART)) if item]


@pytest.mark.parametrize(
    ("health", "path"),
    [({}, ""), ({"path": "/healthz"}, "/healthz"), ({"path": "/ready", "livenessPath": "/live"}, "/live")],
)
def test_the_liveness_probe_says_what_is_asked(tmp_path: Path, health: dict[str, str], path: str) -> None:
    pod = smoke.web_pod(rendered(tmp_path, WORKER | {"health": health}))
    assert pod["containers"][0].get("command") is None, "a component's"
    assert smoke.path_of(pod["containers"][0]) == path


def test_a_url_that_only_the_cluster_knows_is_one(tmp_path: Path) -> None:
    values = {"postgresql": {"enabled": True, "auth": {"urlScheme": "postgresql+psycopg2"}}}
    container = smoke.web_pod(rendered(tmp_path, values))["containers"][0]
    release = replace(config.load(), release_values=(tmp_path / "values.yaml",))
    assert chart.url_scheme(config.load()) == "postgresql"
    environment = smoke._environment(container, {}, f"{chart.url_scheme(release)}://{smoke.UNKNOWN}")
    assert environment["DATABASE_URL"] == "postgresql+psycopg2://unknown-here"
    assert environment["DB_PASSWORD"] == "unknown-here"
    assert environment["DB_PORT"] == "5432"


def test_a_chart_without_web_pods_is_refused(tmp_path: Path) -> None:
    objects = [item for item in rendered(tmp_path, {}) if item["kind"] != "Deployment"]
    with pytest.raises(DeployError, match="the chart renders no Deployment of web pods"):
        smoke.web_pod(objects)
