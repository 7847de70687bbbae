"""The chart as it is released: with the image's digest in it, whatever a release's values leave out."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from flaskapp_deploy.release import chart, config
from flaskapp_deploy.release.state import Image, ReleaseState
from flaskapp_deploy.resources import CHART
from flaskapp_deploy.shell import DeployError

IMAGE = Image("registry.example.com/shop", f"sha256:{'1' * 64}", {}, ())
STATE = ReleaseState("1.4.2", "1.4.2", "0" * 40, "", "", "")


@pytest.mark.parametrize("values", ["{}", "image: {pullPolicy: Always}", "image:"])
def test_it_runs_the_image_by_its_digest(tmp_path: Path, values: str) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(values)
    release = replace(config.load(), release_values=(file,))
    rendered = chart.render(release, chart.prepare(release, STATE, IMAGE, tmp_path))
    [deployment] = [item for item in yaml.safe_load_all(rendered) if item and item["kind"] == "Deployment"]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"{IMAGE.repository}@{IMAGE.digest}"


def test_a_chart_without_these_values_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "charts/other"
    other.mkdir(parents=True)
    (other / "Chart.yaml").write_text((CHART / "Chart.yaml").read_text())
    (other / "values.yaml").write_text("replicas: 1\n")
    with pytest.raises(DeployError, match=r"other/values.yaml has no image.repository, image.tag and image.digest"):
        chart.prepare(replace(config.load(), chart=other), STATE, IMAGE, tmp_path)
