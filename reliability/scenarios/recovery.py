"""Data: kept, restored, deleted only where that was asked for."""

import json
import re
import time

import yaml

from reliability.scenarios import scenario
from reliability.stage import APP, CHART, DATABASE, NAMESPACE, RELEASE, Stage, until

BACKUPS = f"{APP}-backup"
DRILL = "app.kubernetes.io/instance=drill"
SUM = "SELECT count(*), md5(string_agg(d::text, ',' ORDER BY id)) FROM deployments d"


@scenario(load=False)
def backup_and_restore(stage: Stage) -> None:
    """A dump that is restored and compared, one with a wrong byte that is refused, and a drill into a new release."""
    stage.upgrade("--set", "backup.enabled=true,backup.persistence.size=1Gi")
    stage.check("restored and compared" in backup_log(stage), "the first backup was not compared")
    run_backup(stage, f"{BACKUPS}-good")

    script = stage.get("configmap", BACKUPS)["data"]["dump.sh"]
    half = '$(($(stat --format=%s "$name.unverified") / 2))'
    patch = {"data": {"dump.sh": f'{script}\nprintf X | dd of="$name.unverified" bs=1 seek={half} conv=notrunc\n'}}
    stage.admin.kubectl("patch", "configmap", BACKUPS, "--patch-file=/dev/stdin", stdin=json.dumps(patch))
    try:
        run_backup(stage, f"{BACKUPS}-wrong")
        stage.check(False, "a backup with a wrong byte counted")
    except TimeoutError:
        stage.check(rings_for(stage, f"{BACKUPS}-wrong"), "the alert does not mean the Job that failed")
        stage.check(not rings_for(stage, f"{BACKUPS}-good"), "the alert means a Job that did not fail")
        stage.note("a wrong byte fails the backup, and its alert means that Job")

    before = stage.sql(SUM)
    began = time.monotonic()
    stage.later("the release drill", lambda: stage.admin.kubectl("delete", "pvc,secret", "--selector", DRILL))
    stage.later("the release drill", lambda: stage.releaser.helm("uninstall", "drill", "--wait"))
    stage.run("bash", str(CHART.parent / "restore.sh"), RELEASE, "drill", admin=True)
    stage.note(f"restored into a new release in {time.monotonic() - began:.0f} s")
    stage.check(stage.sql(SUM, pod="drill-postgresql-0") == before, "the restored rows are others")


def run_backup(stage: Stage, name: str) -> None:
    """Run one as the clock would.

    Raises:
        TimeoutError: it failed.
    """
    stage.admin.kubectl("delete", "job", name, "--ignore-not-found")
    stage.admin.kubectl("create", "job", name, f"--from=cronjob/{BACKUPS}")

    def ended() -> bool:
        return bool(stage.get("job", name)["status"].get("conditions"))

    until(ended, 240, f"the end of the backup {name}")
    states = {one["type"] for one in stage.get("job", name)["status"]["conditions"]}
    if "Complete" not in states:
        raise TimeoutError(name)


def rings_for(stage: Stage, job: str) -> bool:
    """Whether FlaskappBackupFailed means this Job, as kube-state-metrics would show it."""
    options = [
        "--set",
        "alerts.enabled=true,backup.enabled=true,postgresql.auth.existingSecret=any",
        "--show-only=templates/prometheusrule.yaml",
    ]
    rule = yaml.safe_load(stage.releaser.helm("template", RELEASE, str(CHART), *options).stdout)
    [alert] = [one for one in rule["spec"]["groups"][0]["rules"] if one["alert"] == "FlaskappBackupFailed"]
    asked = re.fullmatch(r'kube_job_failed\{namespace="(.*)",job_name=~"(.*)",condition="true"\} == 1', alert["expr"])
    failed = any(one["type"] == "Failed" for one in stage.get("job", job)["status"]["conditions"])
    return bool(asked and failed and asked[1] == NAMESPACE and re.fullmatch(asked[2], job))


def backup_log(stage: Stage) -> str:
    selector = f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component=backup"
    return stage.admin.kubectl("logs", "--selector", selector, "--all-containers", "--tail=-1").stdout


@scenario(load=False)
def uninstall_and_reinstall(stage: Stage) -> None:
    """An uninstall keeps data and credentials, and a reinstallation finds them; asked to, it deletes both."""
    stage.sql("CREATE TABLE IF NOT EXISTS kept AS SELECT 1 AS n")
    before = stage.secret(DATABASE)
    stage.releaser.helm("uninstall", RELEASE, "--wait", "--timeout=3m")
    stage.check(stage.secret(DATABASE) == before, "the credentials are not the ones of before")
    stage.upgrade()
    stage.check(stage.sql("SELECT n FROM kept") == "1", "the data is gone")

    stage.upgrade("--set", "postgresql.primary.persistence.keep=false")
    stage.releaser.helm("uninstall", RELEASE, "--wait", "--timeout=3m")
    kinds = "deployments,statefulsets,jobs,cronjobs,pods,services,configmaps,secrets,persistentvolumeclaims"
    kinds += ",horizontalpodautoscalers,poddisruptionbudgets,serviceaccounts,networkpolicies"

    def left() -> list[str]:
        found = stage.get(kinds, selector=f"app.kubernetes.io/instance={RELEASE}")
        return [f"{one['kind']} {one['metadata']['name']}" for one in found if BACKUPS not in one["metadata"]["name"]]

    until(lambda: not left(), 90, "the end of everything")
    stage.upgrade()
    stage.check(stage.sql("SELECT to_regclass('kept') IS NULL") == "t", "the data is there after all")
