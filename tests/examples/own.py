"""This repository's own examples, on the chart's defaults: nothing but their values and an image."""

from flaskapp_deploy.kubernetes import Cluster
from tests.examples.test_examples import Example
from tests.kubernetes import ROOT
from tests.reliability.test_release import CHART, url

WAIT = ("--wait", "--wait-for-jobs", "--timeout=5m")


class OwnExample(Example):
    """A release of an example."""

    def __init__(self, name: str, cluster: Cluster, image: str) -> None:
        super().__init__(name, cluster, image)
        self.instance = f"app.kubernetes.io/instance={name}"

    def upgrade(self, *settings: str) -> None:
        repository, _, tag = self.image.rpartition(":")
        values = [
            "--values",
            str(ROOT / "examples" / self.name / "values.yaml"),
            f"--set=image.repository={repository}",
        ]
        self.cluster.helm(
            "upgrade", self.name, CHART, "--install", *WAIT, *values, f"--set-string=image.tag={tag}", *settings
        )

    @property
    def url(self) -> str:
        return url(self.cluster, self.name)
