"""Point-in-time recovery in docs/backup.md, by the schemas of CloudNativePG and of RDS."""

from __future__ import annotations

import re
from typing import Any

import yaml
from botocore import xform_name  # type: ignore[import-untyped]
from botocore.session import Session  # type: ignore[import-untyped]
from botocore.validate import ParamValidator  # type: ignore[import-untyped]

from tests.chart.kubernetes_schemas import NEWEST, kubeconform
from tests.chart.render import ROOT

TEXT = (ROOT / "docs/backup.md").read_text()


def test_cloudnativepg() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    objects = [item for block in blocks for item in yaml.safe_load_all(block)]
    assert [item["kind"] for item in objects] == ["ObjectStore", "Cluster", "ScheduledBackup", "Cluster"]
    result = kubeconform("\n---\n".join(blocks), NEWEST)
    assert result.returncode == 0, result.stdout + result.stderr

    store, cluster, clock, restored = objects
    [plugin] = cluster["spec"]["plugins"]
    [before] = restored["spec"]["externalClusters"]
    origin = {"serverName": cluster["metadata"]["name"], "barmanObjectName": store["metadata"]["name"]}
    assert plugin["parameters"]["barmanObjectName"] == store["metadata"]["name"]
    assert before["plugin"] == {"name": plugin["name"], "parameters": origin}
    assert restored["spec"]["bootstrap"]["recovery"]["source"] == before["name"]
    assert clock["spec"]["cluster"]["name"] == cluster["metadata"]["name"]
    assert clock["spec"]["pluginConfiguration"]["name"] == plugin["name"]


def test_the_cluster_is_the_one_of_the_environment() -> None:
    """Without its backup it is the cluster of docs/postgresql.md."""
    other = (ROOT / "docs/postgresql.md").read_text()
    plain = yaml.safe_load(other[other.index("apiVersion: postgresql.cnpg.io") :].partition("```")[0])
    cluster = next(
        item
        for item in yaml.safe_load_all(TEXT.partition("```yaml\n")[2].partition("```")[0])
        if item["kind"] == "Cluster"
    )
    del cluster["spec"]["plugins"]
    assert cluster == plain


def test_rds() -> None:
    _, service, command, *rest = TEXT[TEXT.index("aws rds ") :].partition("```")[0].replace("\\\n", " ").split()
    model = Session().get_service_model(service)
    operation = model.operation_model("RestoreDBInstanceToPointInTime")
    assert xform_name(operation.name, "-") == command
    names = {f"--{xform_name(name, '-')}": name for name in operation.input_shape.members}
    parameters: dict[str, Any] = {names[option]: value for option, value in zip(rest[::2], rest[1::2], strict=True)}
    parameters["VpcSecurityGroupIds"] = [parameters["VpcSecurityGroupIds"]]
    assert not ParamValidator().validate(parameters, operation.input_shape).has_errors()
