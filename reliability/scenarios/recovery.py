"""Data: kept, restored, deleted only where that was asked for."""

import json
import re
import time

import yaml

from reliability.environment import Environment
from reliability.release import CHART, DATABASE, LEDGER, NAMESPACE, RELEASE, conditions, until

OF_RELEASE = f"app.kubernetes.io/instance={RELEASE}"
DRILL = "app.kubernetes.io/instance=drill"
SUM = "SELECT count(*), md5(string_agg(d::text, ',' ORDER BY id)) FROM deployments d"


def backup_and_restore(env: Environment) -> None:
    """A dump that is restored and compared, one with a wrong byte that is refused, and a drill into a new release."""
    env.upgrade("--set", "backup.enabled=true,backup.persistence.size=1Gi")
    backups = f"{env.app}-backup"
    logs = env.log(f"--selector={OF_RELEASE},app.kubernetes.io/component=backup", "--all-containers", "--tail=-1")
    env.check("restored and compared" in logs, "the first backup was not compared")
    env.check(run_backup(env, backups, "good"), "a second backup failed")

    script = env.get("configmap", backups)["data"]["dump.sh"]
    half = '$(($(stat --format=%s "$name.unverified") / 2))'
    patch = {"data": {"dump.sh": f'{script}\nprintf X | dd of="$name.unverified" bs=1 seek={half} conv=notrunc\n'}}
    env.admin.kubectl("patch", "configmap", backups, "--patch-file=/dev/stdin", stdin=json.dumps(patch))
    env.check(not run_backup(env, backups, "wrong"), "a backup with a wrong byte counted")
    env.check(rings_for(env, f"{backups}-wrong"), "the alert does not mean the Job that failed")
    env.check(not rings_for(env, f"{backups}-good"), "the alert means a Job that did not fail")
    env.note("a wrong byte fails the backup, and its alert means that Job")

    before = env.sql(SUM)
    began = time.monotonic()
    env.later("the release drill", lambda: env.admin.kubectl("delete", "pvc,secret", "--selector", DRILL))
    env.later("the release drill", lambda: env.uninstall("drill"))
    env.run("bash", str(CHART.parent / "restore.sh"), RELEASE, "drill", admin=True)
    env.note(f"restored into a new release in {time.monotonic() - began:.0f} s")
    env.check(env.sql(SUM, pod="drill-postgresql-0") == before, "the restored rows are others")


def run_backup(env: Environment, backups: str, suffix: str) -> bool:
    """Run a backup as its schedule, the CronJob `backups`, would; return whether it succeeded."""
    name = f"{backups}-{suffix}"
    env.admin.kubectl("delete", "job", name, "--ignore-not-found")
    env.admin.kubectl("create", "job", name, f"--from=cronjob/{backups}")

    def outcome() -> set[str]:
        return conditions(env.get("job", name)) & {"Complete", "Failed"}

    until(lambda: bool(outcome()), 240, f"the backup {name}")
    return outcome() == {"Complete"}


def rings_for(env: Environment, job: str) -> bool:
    """Return whether the alert BackupFailed means this Job, as kube-state-metrics would show it."""
    options = [
        f"--values={LEDGER}",
        "--set",
        "image.repository=any,image.tag=1,alerts.enabled=true,backup.enabled=true",
    ]
    options += ["--show-only=templates/prometheusrule.yaml", "--dry-run=server"]
    rule = yaml.safe_load(env.releaser.helm("template", RELEASE, str(CHART), *options).stdout)
    [alert] = [one for one in rule["spec"]["groups"][0]["rules"] if one["alert"].endswith("BackupFailed")]
    match = re.fullmatch(r'kube_job_failed\{namespace="(.*)",job_name=~"(.*)",condition="true"\} == 1', alert["expr"])
    failed = "Failed" in conditions(env.get("job", job))
    return bool(match and failed and match[1] == NAMESPACE and re.fullmatch(match[2], job))


def uninstall_and_reinstall(env: Environment) -> None:
    """An uninstall keeps data and credentials, and a reinstallation finds them; asked to, it deletes both."""
    env.sql("CREATE TABLE IF NOT EXISTS kept AS SELECT 1 AS n")
    before = env.secret(DATABASE)
    env.uninstall()
    env.check(env.secret(DATABASE) == before, "the credentials are not the ones of before")
    env.upgrade()
    env.check(env.sql("SELECT n FROM kept") == "1", "the data is gone")

    claim = f"data-{DATABASE}-0"
    env.upgrade(
        "--set", f"postgresql.primary.persistence.keep=false,postgresql.primary.persistence.confirmDelete={claim}"
    )
    env.uninstall()
    kinds = "deployments,statefulsets,jobs,cronjobs,pods,services,configmaps,secrets,persistentvolumeclaims"
    kinds += ",horizontalpodautoscalers,poddisruptionbudgets,serviceaccounts,networkpolicies"

    def is_empty() -> bool:
        return all("-backup" in one["metadata"]["name"] for one in env.get(kinds, selector=OF_RELEASE))

    until(is_empty, 90, "the namespace without the release")
    env.upgrade()
    env.check(env.sql("SELECT to_regclass('kept') IS NULL") == "t", "the data is there after all")
