"""A release by digest: `helm upgrade --install`, back again where it fails, and the chart's own test."""

import json
import os
from dataclasses import replace
from datetime import UTC, datetime

from flaskapp_deploy import shell
from flaskapp_deploy.kubernetes import Cluster
from flaskapp_deploy.release import package, state
from flaskapp_deploy.release.config import ReleaseConfig
from flaskapp_deploy.release.state import Outcome, Status
from flaskapp_deploy.shell import DeployError, say

TIMEOUT = os.environ.get("RELEASE_TIMEOUT", "10m")  # how long helm waits


def release(config: ReleaseConfig, cluster: Cluster) -> None:
    """Install or upgrade to the chart that was pushed; wait until it serves, and test it.

    What came of it is in release.json: `succeeded`, `rolled_back` (what served before serves again) or `failed`;
    nothing where there are no rights, and nothing was begun.
    """
    release = state.load()
    chart = state.require("package", release.chart)
    preflight(cluster)
    before, _ = revision(cluster, config.name)
    started = Outcome("started", config.environment, now())
    state.save(replace(release, outcome=started))

    def finish(status: Status) -> None:
        state.save(replace(release, outcome=replace(started, status=status, finished_at=now())))

    options = ["--install", "--rollback-on-failure", "--wait", "--wait-for-jobs", f"--timeout={TIMEOUT}"]
    options += [f"--values={file}" for file in config.release_values]
    options += ["--registry-config", package.login()]
    try:
        say(f"releasing {chart.reference} into {cluster.namespace!r}, waiting until every pod is ready")
        cluster.helm("upgrade", config.name, f"oci://{chart.reference}", *options)
        test(config, cluster, before)
    except DeployError:
        _, status = revision(cluster, config.name)
        finish("rolled_back" if before and status == "deployed" else "failed")
        diagnose(cluster)
        raise
    finish("succeeded")
    say(f"{config.name} {release.chart_version} is released to {config.environment}")


def preflight(cluster: Cluster) -> None:
    """Fail before anything is begun where the cluster can't be reached or the namespace isn't ours."""
    answer = cluster.kubectl("auth", "can-i", "create", "deployments.apps", check=False)
    if answer.stdout.strip() == "yes":
        return
    if answer.stdout.strip() == "no" or "Forbidden" in answer.stderr:
        raise DeployError(
            f"no right to release into the namespace {cluster.namespace!r}: is it there, with"
            " infra/helm-release-role.yaml applied, and the access entry of infra/cluster.yaml?"
        )
    raise DeployError(
        f"the cluster can't be reached: {shell.reason(answer)}; run the buildspec's line with update-kubeconfig again"
    )


def test(config: ReleaseConfig, cluster: Cluster, before: int) -> None:
    """Run the chart's test; where it fails, what served before comes back."""
    tested = cluster.helm("test", config.name, "--logs", check=False)
    if tested.returncode == 0:
        return
    (state.FOLDER / "test.log").write_text(tested.stdout + tested.stderr)
    if before:
        cluster.helm("rollback", config.name, str(before), "--wait", f"--timeout={TIMEOUT}")
    last = [text.strip().splitlines()[-1] for text in (tested.stderr, tested.stdout) if text.strip()]
    raise DeployError(f"helm test failed (build/release/test.log): {'; '.join(last)}")


def revision(cluster: Cluster, name: str) -> tuple[int, str]:
    """Return number and status of the newest revision that helm keeps of a release; 0 where it keeps none."""
    result = cluster.helm("history", name, "--max=1", "--output=json", check=False)
    if result.returncode:
        return 0, ""
    newest = json.loads(result.stdout)[-1]
    return newest["revision"], newest["status"]


def diagnose(cluster: Cluster) -> None:
    """Keep what the namespace says about itself: pods, events, the last lines of each container."""
    names = cluster.kubectl("get", "pods", "--output=name", check=False).stdout.split()
    questions = [["get", "pods", "-o", "wide"], ["get", "events", "--sort-by=.lastTimestamp"]]
    questions += [["logs", name, "--all-containers", "--prefix", "--tail=50"] for name in names]
    answers = [(question, cluster.kubectl(*question, check=False).stdout) for question in questions]
    text = "\n".join(f"$ kubectl {' '.join(question)}\n{output}" for question, output in answers)
    (state.FOLDER / "diagnosis.txt").write_text(text)


def now() -> str:
    """The time in UTC, to the second, as ISO 8601 has it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
