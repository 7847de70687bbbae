"""`make up` for our service and for a directory that isn't ours, as people type it."""

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from flaskapp_deploy.cluster.localcluster import LocalCluster
from flaskapp_deploy.kubernetes import Cluster
from flaskapp_deploy.release import config
from flaskapp_deploy.shell import DeployError
from flaskapp_deploy.up.install import claim_name, ensure_namespace
from tests.kubernetes import INSTANCE, ROOT


def make_up(*arguments: str) -> list[str]:
    """Run `make up`; return the lines for the shell that it printed."""
    command = ["make", "--no-print-directory", "up", f"INSTANCE={INSTANCE}", *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stderr
    return [line.strip() for line in result.stdout.splitlines() if line.startswith("  ")]


def shell(lines: list[str]) -> str:
    """Paste lines into a shell."""
    result = subprocess.run(["bash", "-euo", "pipefail"], input="\n".join(lines), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_ledger(kubernetes: LocalCluster) -> None:
    lines = make_up()
    asked = [line for line in lines if line.startswith(("TOKEN=", "curl"))]
    assert len(asked) == 4
    answers = shell(asked)
    assert answers.count('"shop"') >= 3, answers
    assert "problem" not in answers
    [look] = [line for line in lines if "get pods,hpa,pvc" in line]
    assert "Running" in shell([look])

    again = make_up()  # the same port, the same rows
    assert [line for line in again if line.startswith("curl")] == [line for line in asked if line.startswith("curl")]
    assert shell(asked[-2:-1]).count('"version"') >= 3


def test_directory_that_is_not_ours(kubernetes: LocalCluster) -> None:
    lines = make_up("APP=examples/hello", "VALUES=examples/hello/values.yaml")
    assert "Hello, world" in shell([line for line in lines if line.startswith("curl")])


def refused(*arguments: str) -> str:
    command = ["make", "--no-print-directory", "up", f"INSTANCE={INSTANCE}", *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    return result.stderr


def test_two_directories_of_one_name(kubernetes: LocalCluster, tmp_path: Path) -> None:
    for place in ("one", "two"):
        shutil.copytree(ROOT / "examples/hello", tmp_path / place / "web")
    (tmp_path / "two/web/app.py").write_text((ROOT / "examples/hello/app.py").read_text().replace("Hello", "Goodbye"))
    one, two = ([f"APP={tmp_path / place / 'web'}", "VALUES=examples/hello/values.yaml"] for place in ("one", "two"))
    first = make_up(*one)
    message = refused(*two)
    assert f"the name 'web' is taken by {tmp_path / 'one/web'}" in message
    assert "NAME=web-2" in message
    assert "building" not in message
    second = make_up(*two, "NAME=web-2")
    assert make_up(*one)[0] == first[0]
    for lines, answer in ((first, "Hello"), (second, "Goodbye")):
        assert answer in shell([line for line in lines if line.startswith("curl")])
    assert "can't name a release" in refused(*two, "NAME=1web")


def test_a_moved_directory_keeps_its_name(admin: Callable[[str], Cluster], tmp_path: Path) -> None:
    cluster = admin("moved")
    ensure_namespace(cluster)
    release = replace(config.load(), name="moved", namespace="moved")
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
    claim_name(cluster, replace(release, application=tmp_path / "before"))
    with pytest.raises(DeployError, match="is taken by"):
        claim_name(cluster, replace(release, application=tmp_path / "after"))
    (tmp_path / "before").rmdir()
    claim_name(cluster, replace(release, application=tmp_path / "after"))
    claim_name(cluster, replace(release, application=tmp_path / "after"))


# The pods wait for the same thing as the migration, longer than a rollout may take.
MIGRATION = """
migrations:
  command: [python, migrate.py]
  waitCommand: [python, -c, import socket; socket.gethostbyname('gate')]
  backoffLimit: 0
rollout: {progressDeadlineSeconds: 10}
"""


def test_up_again_after_a_failed_migration(
    kubernetes: LocalCluster, admin: Callable[[str], Cluster], tmp_path: Path
) -> None:
    """First the application is repaired, then what it needs: neither takes a step by hand."""
    application = tmp_path / "gated"
    shutil.copytree(ROOT / "examples/hello", application)
    probes = yaml.safe_load((ROOT / "examples/hello/values.yaml").read_text())["probes"]
    (application / "values.yaml").write_text(MIGRATION + yaml.safe_dump({"replicas": 1, "probes": probes}))
    arguments = [f"APP={application}", f"VALUES={application / 'values.yaml'}"]
    (application / "migrate.py").write_text("raise SystemExit('the column is missing')")
    assert "the migration failed" in refused(*arguments)
    (application / "migrate.py").write_text("import socket\nsocket.gethostbyname('gate')")
    assert "the migration failed" in refused(*arguments)
    past = ["deployment", "--selector=app.kubernetes.io/instance=gated", "--for=condition=Progressing=False"]
    admin("gated").kubectl("wait", *past, "--timeout=60s")
    admin("gated").kubectl("create", "service", "clusterip", "gate", "--tcp=80")
    assert "Hello, world" in shell([line for line in make_up(*arguments) if line.startswith("curl")])


def test_directory_without_an_application() -> None:
    command = ["make", "up", "APP=docs", f"INSTANCE={INSTANCE}"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode != 0
    assert "requirements.txt" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_cluster_that_people_have(kubernetes: LocalCluster, images: dict[str, str]) -> None:
    """KUBE_CONTEXT: their kubeconfig, an image that its nodes can get; nothing of the cluster is ours."""
    people = os.environ | {"KUBECONFIG": str(kubernetes.kubeconfig)}
    context = [f"KUBE_CONTEXT=flaskapp-{INSTANCE}", "APP=examples/hello"]
    command = ["make", "--no-print-directory", "up", *context, "VALUES=examples/hello/values.yaml"]
    environment = people | {"IMAGE": images["hello"]}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "GET /: " in result.stderr
    assert "port-forward service/hello" in result.stdout

    refused = subprocess.run(command, cwd=ROOT, env=people, capture_output=True, text=True, timeout=300)
    assert "IMAGE=registry/name:tag" in refused.stderr
    down = subprocess.run(["make", "down", *context], cwd=ROOT, env=people, capture_output=True, text=True, timeout=300)
    assert "the release 'hello' is uninstalled" in down.stderr
