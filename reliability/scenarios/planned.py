"""What people do to a release on purpose: no request fails, no row is lost."""

import subprocess
import tarfile
import tempfile
import time
from io import BytesIO
from pathlib import Path

import yaml

from flaskapp_deploy import programs
from flaskapp_deploy.shell import DeployError
from reliability.outcome import ANY, Bound
from reliability.scenarios import scenario
from reliability.stage import APP, CHART, RELEASE, ROOT, TAKE_BACK, Stage, until


@scenario(times=5)
def image_change(stage: Stage) -> None:
    """A rolling upgrade to another image."""
    before = {pod["metadata"]["uid"] for pod in stage.web_pods()}
    stage.mark("helm upgrade")
    stage.upgrade(image=stage.other_image)
    stage.mark("done")
    stage.check(not before & {pod["metadata"]["uid"] for pod in stage.ready_pods()}, "the pods are the old ones")


@scenario()
def config_change(stage: Stage) -> None:
    """A changed setting, which rolls the pods."""
    stage.mark("helm upgrade")
    stage.upgrade("--set", "config.LOG_LEVEL=WARNING")


@scenario(short=True)
def rollback(stage: Stage) -> None:
    """helm rollback after an upgrade to another image."""
    before = stage.revision()
    stage.upgrade(image=stage.other_image)
    stage.mark("helm rollback")
    stage.releaser.helm("rollback", RELEASE, str(before), "--wait", "--timeout=4m")
    images = {pod["spec"]["containers"][0]["image"] for pod in stage.ready_pods()}
    stage.check(images == {stage.image}, f"after the rollback pods run {images}")


@scenario(short=True)
def schema_change_and_rollback(stage: Stage) -> None:
    """An upgrade with a migration that adds, then a rollback: the release before serves on the new schema."""
    before = stage.revision()
    newer = stage.newer_image()
    schema = stage.sql("SELECT version_num FROM alembic_version")
    back = "DROP TABLE IF EXISTS regions; ALTER TABLE deployments DROP COLUMN IF EXISTS region;"
    back += f" UPDATE alembic_version SET version_num = '{schema}'"
    stage.later("the schema is a newer one", lambda: stage.sql(back))
    stage.mark("helm upgrade")
    stage.upgrade(image=newer)
    stage.check(stage.sql("SELECT version_num FROM alembic_version") == "9999", "the schema was not migrated")
    stage.mark("helm rollback")
    stage.releaser.helm("rollback", RELEASE, str(before), "--wait", "--wait-for-jobs", "--timeout=4m")
    images = {pod["spec"]["containers"][0]["image"] for pod in stage.ready_pods()}
    stage.check(images == {stage.image}, f"after the rollback pods run {images}")


@scenario(short=True)
def scale_by_autoscaler(stage: Stage) -> None:
    """The load is more than the autoscaler wants for two pods, then less than it wants for three."""
    scaling = "autoscaling.enabled=true,autoscaling.minReplicas=2,autoscaling.maxReplicas=4"
    stage.later("the autoscaler owns the number of pods", lambda: stage.upgrade(*TAKE_BACK))
    stage.mark("20 %")
    began = time.monotonic()
    stage.upgrade("--set", f"{scaling},autoscaling.targetCPUUtilizationPercentage=20")  # waits for some of it
    until(lambda: len(stage.ready_pods()) == 4, 120, "four ready pods")
    stage.note(f"four ready {time.monotonic() - began:.0f} s after helm upgrade began")
    stage.mark("2000 %")
    # At once, and not only after five calm minutes.
    calm = "autoscaling.behavior.scaleDown.stabilizationWindowSeconds=0"
    stage.upgrade("--set", f"{scaling},autoscaling.targetCPUUtilizationPercentage=2000,{calm}")
    until(lambda: len(stage.web_pods()) == 2, 150, "two pods again")


@scenario()
def three_pods(stage: Stage) -> None:
    """A release of three pods, against three starts of a pod one after the other: 1.3 times as long at most."""
    stage.later("three pods", lambda: stage.upgrade(*TAKE_BACK))
    deployment = f"deployment/{APP}"
    began = time.monotonic()
    for replicas in (3, 4, 5):
        stage.admin.kubectl("scale", deployment, f"--replicas={replicas}")
        stage.admin.kubectl("rollout", "status", deployment, "--timeout=2m")
    starts = time.monotonic() - began
    stage.upgrade("--set", "replicas=3", *TAKE_BACK)
    until(lambda: len(stage.web_pods()) == 3, 90, "three pods")
    stage.mark("helm upgrade")
    began = time.monotonic()
    stage.upgrade("--set", "replicas=3", image=stage.other_image)
    took = time.monotonic() - began
    stage.note(f"{took:.1f} s, three starts {starts:.1f} s")
    stage.check(took <= 1.3 * starts, f"the release took {took / starts:.2f} times as long as three starts")


def crowd(stage: Stage) -> None:
    """Both pods on the node without PostgreSQL, so that a drain takes all there is."""
    other = node_without_database(stage)
    home = stage.database_pod()["spec"]["nodeName"]
    stage.later(f"node {home} is cordoned", lambda: stage.admin.kubectl("uncordon", home))
    stage.admin.kubectl("cordon", home)
    for pod in stage.web_pods():
        if pod["spec"]["nodeName"] == home:
            stage.admin.kubectl("delete", "pod", pod["metadata"]["name"])
    until(lambda: [pod["spec"]["nodeName"] for pod in stage.ready_pods()] == [other] * 2, 90, "both pods' move")
    stage.admin.kubectl("uncordon", home)


def node_without_database(stage: Stage) -> str:
    [found] = set(stage.instance.nodes) - {stage.database_pod()["spec"]["nodeName"]}
    return found


@scenario(short=True, times=5, prepare=crowd)
def drain(stage: Stage) -> None:
    """A drain of the node that has both pods, as the disruption budget allows."""
    other = node_without_database(stage)
    stage.later(f"node {other} is cordoned", lambda: stage.admin.kubectl("uncordon", other))
    stage.mark(f"drain {other}")
    options = ["--ignore-daemonsets", "--delete-emptydir-data", "--timeout=120s"]
    stage.admin.kubectl("drain", other, *options, f"--pod-selector=app.kubernetes.io/instance={RELEASE}")
    until(lambda: len(stage.ready_pods()) == 2 == len(stage.web_pods()), 90, "two ready pods on the other node")


# --- releases of before ----------------------------------------------------------------------------------------------


def by_helm_3(stage: Stage) -> None:
    """The release, made by Helm 3 with the data that is there."""
    stage.releaser.helm("uninstall", RELEASE, "--wait", "--timeout=3m")
    helm = str(programs.binaries("helm3") / "helm")
    stage.run(helm, *stage.upgrade_arguments(wait=False), "--wait", "--timeout=4m")


@scenario(prepare=by_helm_3)
def helm_3_release(stage: Stage) -> None:
    """A release of Helm 3 is upgraded by Helm 4, to another image."""
    stage.mark("helm 4 upgrade")
    stage.upgrade(image=stage.other_image)
    images = {pod["spec"]["containers"][0]["image"] for pod in stage.ready_pods()}
    stage.check(images == {stage.other_image}, f"after the upgrade pods run {images}")


def git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True).stdout


def earlier_charts() -> list[tuple[str, str]]:
    """Released charts as (version, revision): those of the tags; while there is none, the version before this one."""
    tags = git("tag", "--list", "v*", "--sort=version:refname").decode().split()
    if tags:
        return [(tag.removeprefix("v"), tag) for tag in tags]
    this = yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]
    for commit in git("log", "--format=%H", "--", "charts/flaskapp/Chart.yaml").decode().split():
        before = git("show", f"{commit}^:charts/flaskapp/Chart.yaml")
        if (version := yaml.safe_load(before)["version"]) != this:
            return [(str(version), f"{commit}^")]
    raise DeployError("there is no chart of another version in the repository's history")


@scenario(Bound(failed=ANY, errors=0, gap=20, outage=ANY))
def earlier_versions(stage: Stage) -> None:
    """From each released chart to this one, by --reuse-values and by --reset-then-reuse-values.

    Where the bundled server's pod changes, it restarts: its answers are a 503 meanwhile.
    """
    for version, revision in earlier_charts():
        with tempfile.TemporaryDirectory(prefix="flaskapp-chart-") as directory:
            with tarfile.open(fileobj=BytesIO(git("archive", revision, "charts"))) as archive:
                archive.extractall(directory, filter="data")
            chart = Path(directory) / "charts/flaskapp"
            stage.run(str(programs.binaries("chart") / "helm"), "dependency", "build", "--skip-refresh", str(chart))
            for option in ("--reuse-values", "--reset-then-reuse-values"):
                stage.mark(version)
                stage.upgrade(chart=chart)
                stage.mark(option.removeprefix("--"))
                arguments = ["upgrade", RELEASE, str(CHART), option, "--wait", "--wait-for-jobs", "--timeout=4m"]
                stage.releaser.helm(*arguments)
        stage.note(f"from {version}")
