"""What people do to a release on purpose: no request fails, no row is lost."""

import time

from flaskapp_deploy import programs
from reliability.environment import Environment
from reliability.release import RELEASE, TAKE_BACK, scale


def image_change(env: Environment) -> None:
    """A rolling upgrade to another image."""
    before = env.uids()
    env.mark("helm upgrade")
    env.upgrade(image=env.other_image)
    env.mark("upgraded")
    env.check(not before & env.uids(), "the pods are the old ones")


def config_change(env: Environment) -> None:
    """A changed setting, which rolls the pods."""
    env.mark("helm upgrade")
    env.upgrade("--set", "config.LOG_LEVEL=WARNING")


def rollback(env: Environment) -> None:
    """A rollback by helm after an upgrade to another image."""
    before = env.revision()
    env.upgrade(image=env.other_image)
    env.mark("helm rollback")
    env.roll_back(before)
    env.check_image(env.image)


def schema_change_and_rollback(env: Environment) -> None:
    """An upgrade with a migration that adds, then a rollback: the release before serves on the new schema."""
    before = env.revision()
    newer = env.build_newer()
    schema = env.sql("SELECT version_num FROM alembic_version")
    back = "DROP TABLE IF EXISTS regions; ALTER TABLE deployments DROP COLUMN IF EXISTS region;"
    back += f" UPDATE alembic_version SET version_num = '{schema}'"
    env.later("the schema is a newer one", lambda: env.sql(back))
    env.mark("helm upgrade")
    env.upgrade(image=newer)
    env.check(env.sql("SELECT version_num FROM alembic_version") == "9999", "the schema was not migrated")
    env.mark("helm rollback")
    env.roll_back(before)
    env.check_image(env.image)


def scale_by_autoscaler(env: Environment) -> None:
    """The load is more than the autoscaler wants for two pods, then less than it wants for three."""
    scaling = "autoscaling.enabled=true,autoscaling.minReplicas=2,autoscaling.maxReplicas=4"
    env.later("the autoscaler owns the number of pods", lambda: env.upgrade(*TAKE_BACK))
    env.mark("20 %")
    began = time.monotonic()
    env.upgrade("--set", f"{scaling},autoscaling.targetCPUUtilizationPercentage=20")  # waits for some of it
    env.wait_for_pods(4, 120)
    env.note(f"four ready {time.monotonic() - began:.0f} s after helm upgrade began")
    env.mark("2000 %")
    # At once, and not only after five calm minutes.
    calm = "autoscaling.behavior.scaleDown.stabilizationWindowSeconds=0"
    env.upgrade("--set", f"{scaling},autoscaling.targetCPUUtilizationPercentage=2000,{calm}")
    env.wait_for_pods(2, 150, in_all=2)


def three_pods(env: Environment) -> None:
    """A release of three pods, against three starts of a pod one after the other: 1.3 times as long at most."""
    env.later("three pods", lambda: env.upgrade(*TAKE_BACK))
    began = time.monotonic()
    for replicas in (3, 4, 5):
        scale(env.admin, env.app, replicas)
    starts = time.monotonic() - began
    env.upgrade("--set", "replicas=3", *TAKE_BACK)
    env.wait_for_pods(3, 90, in_all=3)
    env.mark("helm upgrade")
    began = time.monotonic()
    env.upgrade("--set", "replicas=3", image=env.other_image)
    took = time.monotonic() - began
    env.note(f"{took:.1f} s, three starts {starts:.1f} s")
    env.check(took <= 1.3 * starts, f"the release took {took / starts:.2f} times as long as three starts")


def crowd(env: Environment) -> None:
    """Both pods on the node without PostgreSQL, so that a drain takes all there is."""
    home = env.database_node()
    env.later(f"node {home} is cordoned", lambda: env.admin.kubectl("uncordon", home))
    env.admin.kubectl("cordon", home)
    for pod in env.web_pods():
        if pod["spec"]["nodeName"] == home:
            env.admin.kubectl("delete", "pod", pod["metadata"]["name"])
    env.wait_for_pods(2, 90, in_all=2)
    env.admin.kubectl("uncordon", home)


def drain(env: Environment) -> None:
    """A drain of the node that has both pods, as the disruption budget allows."""
    node = env.other_node()
    env.later(f"node {node} is cordoned", lambda: env.admin.kubectl("uncordon", node))
    env.mark(f"drain {node}")
    options = ["--ignore-daemonsets", "--delete-emptydir-data", "--timeout=120s"]
    env.admin.kubectl("drain", node, *options, f"--pod-selector=app.kubernetes.io/instance={RELEASE}")
    env.wait_for_pods(2, 90, in_all=2)


# --- releases of before ----------------------------------------------------------------------------------------------


def install_by_helm_3(env: Environment) -> None:
    """The release, made by Helm 3 with the data that is there."""
    env.uninstall()
    helm = str(programs.binaries("helm3") / "helm")
    env.run(helm, *env.upgrade_arguments(), "--wait", "--timeout=4m")


def helm_3_release(env: Environment) -> None:
    """A release of Helm 3 is upgraded by Helm 4, to another image."""
    env.mark("helm 4 upgrade")
    env.upgrade(image=env.other_image)
    env.check_image(env.other_image)


def install_released(env: Environment) -> None:
    """The release, made by the chart of version 0.2.0 with the data that is there."""
    env.install_released()


def earlier_versions(env: Environment) -> None:
    """A release of chart 0.2.0 is upgraded to this one, whose objects have other names: it keeps its own."""
    before = env.app
    env.mark("helm upgrade")
    env.upgrade()
    env.check(env.app == before == f"{RELEASE}-flaskapp", f"{before} is now {env.app}")
