"""A release by digest: `helm upgrade --install`, back again where it fails, and the chart's own test."""

import json
import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from flaskapp_deploy import shell
from flaskapp_deploy.kubernetes import Cluster
from flaskapp_deploy.release import package, state
from flaskapp_deploy.release.config import ReleaseConfig
from flaskapp_deploy.release.state import Outcome, Status
from flaskapp_deploy.shell import DeployError, say

TIMEOUT = "10m"


@dataclass(frozen=True)
class Revision:
    """One that helm keeps of a release."""

    number: int
    status: str


def release(config: ReleaseConfig, cluster: Cluster) -> None:
    """Install or upgrade to the chart that was pushed; wait until it serves, and test it.

    What came of it is in release.json: `succeeded`, `rolled_back` (what served before serves again) or `failed`.

    Raises:
        DeployError: it did not succeed; nothing was begun where there are no rights.
    """
    release = state.load()
    chart = state.require("package", release.chart)
    preflight(cluster)
    before = revision(cluster, config.name)
    started = Outcome("started", config.environment, now())
    state.save(replace(release, outcome=started))

    def finish(status: Status, newest: Revision | None) -> None:
        outcome = replace(started, status=status, finished_at=now(), revision=newest.number if newest else None)
        state.save(replace(release, outcome=outcome))

    try:
        upgrade(config, cluster, chart.reference)
        test(config, cluster, before)
    except DeployError:
        after = revision(cluster, config.name)
        finish("rolled_back" if before and after and after.status == "deployed" else "failed", after)
        diagnose(cluster)
        raise
    finish("succeeded", revision(cluster, config.name))
    say(f"{config.name} {chart.version} is released to {config.environment}")


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


def upgrade(config: ReleaseConfig, cluster: Cluster, reference: str) -> None:
    """Upgrade to a chart by its digest, and wait until every pod is ready; helm rolls back where it fails."""
    values = [f"--values={file}" for file in config.release_values]
    options = ["--install", "--rollback-on-failure", "--wait", "--wait-for-jobs", f"--timeout={timeout()}"]
    say(f"releasing {reference} into {cluster.namespace!r}, waiting until every pod is ready")
    cluster.helm("upgrade", config.name, f"oci://{reference}", *options, *values, "--registry-config", package.login())


def test(config: ReleaseConfig, cluster: Cluster, before: Revision | None) -> None:
    """Run the chart's test; where it fails, what served before comes back."""
    tested = cluster.helm("test", config.name, "--logs", check=False)
    if tested.returncode == 0:
        return
    (state.FOLDER / "test.log").write_text(tested.stdout + tested.stderr)
    if before:
        cluster.helm("rollback", config.name, str(before.number), "--wait", f"--timeout={timeout()}")
    last = [text.strip().splitlines()[-1] for text in (tested.stderr, tested.stdout) if text.strip()]
    raise DeployError(f"helm test failed (build/release/test.log): {'; '.join(last)}")


def revision(cluster: Cluster, name: str) -> Revision | None:
    """Return the newest revision that helm keeps of a release, if it keeps any."""
    result = cluster.helm("history", name, "--max=1", "--output=json", check=False)
    if result.returncode:
        return None
    newest = json.loads(result.stdout)[-1]
    return Revision(newest["revision"], newest["status"])


def diagnose(cluster: Cluster) -> None:
    """Keep what the namespace says about itself: pods, events, the last lines of each container."""
    names = cluster.kubectl("get", "pods", "--output=name", check=False).stdout.split()
    questions = [["get", "pods", "-o", "wide"], ["get", "events", "--sort-by=.lastTimestamp"]]
    questions += [["logs", name, "--all-containers", "--prefix", "--tail=50"] for name in names]
    answers = [(question, cluster.kubectl(*question, check=False).stdout) for question in questions]
    text = "\n".join(f"$ kubectl {' '.join(question)}\n{output}" for question, output in answers)
    (state.FOLDER / "diagnosis.txt").write_text(text)


def timeout() -> str:
    """How long helm waits: RELEASE_TIMEOUT, or ten minutes."""
    return os.environ.get("RELEASE_TIMEOUT", TIMEOUT)


def now() -> str:
    """The time in UTC, to the second, as ISO 8601 has it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
