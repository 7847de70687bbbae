"""The number of pods passes from helm to the autoscaler."""

import json
from collections.abc import Callable
from typing import Any

from flaskapp_deploy.kubernetes import Cluster
from tests.kubernetes import ROOT
from tests.reliability.test_release import CHART, get, wait


def test_switching_the_autoscaler_on_keeps_every_pod(
    releaser: Callable[[str], Cluster], images: dict[str, str]
) -> None:
    """From the upgrade that enables the autoscaler to the next one; scaling down is disabled."""
    cluster = releaser("autoscaler")
    repository, _, tag = images["hello"].rpartition(":")
    values = ["--values", str(ROOT / "examples/hello/values.yaml"), "--set", f"image.repository={repository}"]
    values += ["--set-string", f"image.tag={tag}", "--wait", "--timeout=2m"]

    def upgrade(*settings: str) -> dict[str, Any]:
        cluster.helm("upgrade", "--install", "hello", CHART, *values, *settings)
        command = ["get", "deployment", "hello", "--output=json", "--show-managed-fields"]
        document: dict[str, Any] = json.loads(cluster.kubectl(*command).stdout)
        return document

    def owners(deployment: dict[str, Any]) -> set[str]:
        """Return the field managers of the number of pods."""
        fields = deployment["metadata"]["managedFields"]
        return {item["manager"] for item in fields if "f:replicas" in item["fieldsV1"].get("f:spec", {})}

    def scaled_down() -> list[str]:
        events = json.loads(cluster.kubectl("get", "events", "--output=json").stdout)["items"]
        return [item["message"] for item in events if item["message"].startswith("Scaled down")]

    scaling = "autoscaling.enabled=true,autoscaling.behavior.scaleDown.selectPolicy=Disabled"
    assert owners(upgrade("--set", "replicas=3")) == {"helm"}
    assert upgrade("--set", f"{scaling},autoscaling.maxReplicas=3")["spec"]["replicas"] == 3
    # With a fourth pod the autoscaler owns the field, and helm gives it up.
    upgrade("--set", f"{scaling},autoscaling.minReplicas=4")
    wait(lambda: get(cluster, "deployment", "hello")["spec"]["replicas"] == 4, 60, "the fourth pod")
    last = upgrade("--set", f"{scaling},autoscaling.minReplicas=4")
    assert last["spec"]["replicas"] == 4
    assert "helm" not in owners(last)
    assert scaled_down() == []
