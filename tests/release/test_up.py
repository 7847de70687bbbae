"""`make up` for our service and for a directory that isn't ours, as people type it."""

import os
import subprocess

from localcluster.instance import Instance
from tests.release.conftest import INSTANCE, ROOT


def make_up(*arguments: str) -> list[str]:
    """Run `make up`; return the lines for the shell that it printed."""
    command = ["make", "--no-print-directory", "up", f"INSTANCE={INSTANCE}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return [line.strip() for line in done.stdout.splitlines() if line.startswith("  ")]


def shell(lines: list[str]) -> str:
    """Paste lines into a shell."""
    done = subprocess.run(["bash", "-euo", "pipefail"], input="\n".join(lines), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_ledger(kubernetes: Instance) -> None:
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


def test_directory_that_is_not_ours(kubernetes: Instance) -> None:
    lines = make_up("APP=examples/hello", "VALUES=examples/hello/values.yaml")
    assert "Hello, world" in shell([line for line in lines if line.startswith("curl")])


def test_directory_without_an_application() -> None:
    command = ["make", "up", "APP=docs", f"INSTANCE={INSTANCE}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    assert "requirements.txt" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_cluster_that_people_have(kubernetes: Instance, images: dict[str, str]) -> None:
    """KUBE_CONTEXT: their kubeconfig, an image that its nodes can get; nothing of the cluster is ours."""
    people = os.environ | {"KUBECONFIG": str(kubernetes.kubeconfig)}
    context = ["KUBE_CONTEXT=flaskapp-test", "APP=examples/hello"]
    command = ["make", "--no-print-directory", "up", *context, "VALUES=examples/hello/values.yaml"]
    environment = people | {"IMAGE": images["hello"]}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "asked /: " in done.stderr
    assert "port-forward service/hello" in done.stdout

    refused = subprocess.run(command, cwd=ROOT, env=people, capture_output=True, text=True, timeout=300)
    assert "IMAGE=registry/name:tag" in refused.stderr
    down = subprocess.run(["make", "down", *context], cwd=ROOT, env=people, capture_output=True, text=True, timeout=300)
    assert "the release 'hello' is gone" in down.stderr
