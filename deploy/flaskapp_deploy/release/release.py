"""A release by digest: `helm upgrade --install`, back again where it fails, and the chart's own test."""

import json
import os
from datetime import UTC, datetime
from typing import Any

from flaskapp_deploy.kubernetes import Cluster
from flaskapp_deploy.release import package, state
from flaskapp_deploy.release.config import Release
from flaskapp_deploy.shell import DeployError, say

TIMEOUT = "10m"


def release(wanted: Release, cluster: Cluster) -> None:
    """Install or upgrade to the chart that was pushed; wait until it serves, and test it.

    What came of it is in release.json: `succeeded`, `rolled_back` (what served before serves again) or `failed`.

    Raises:
        DeployError: it did not succeed; nothing was begun where there are no rights.
    """
    known = state.need("chart", "image")
    preflight(cluster)
    begun = now()
    before = revision(cluster, wanted.name)
    state.add(outcome={"status": "started", "started_at": begun, "environment": wanted.environment})
    try:
        upgrade(wanted, cluster, known["chart"]["reference"])
        test(wanted, cluster, before)
    except DeployError:
        after = revision(cluster, wanted.name)
        status = "rolled_back" if before and after.get("status") == "deployed" else "failed"
        finish(wanted, begun, status, after)
        diagnose(cluster)
        raise
    finish(wanted, begun, "succeeded", revision(cluster, wanted.name))
    say(f"{wanted.name} {known['chart']['version']} is released to {wanted.environment}")


def preflight(cluster: Cluster) -> None:
    """Fail before anything is begun where the cluster can't be reached or the namespace isn't ours."""
    asked = cluster.kubectl("auth", "can-i", "create", "deployments.apps", check=False)
    if asked.stdout.strip() == "yes":
        return
    if asked.stdout.strip() == "no" or "Forbidden" in asked.stderr:
        raise DeployError(
            f"no right to release into the namespace {cluster.namespace!r}: is it there, with"
            " infra/helm-release-role.yaml applied, and the access entry of infra/cluster.yaml?"
        )
    message = (asked.stderr.strip().splitlines() or ["no answer"])[-1]
    raise DeployError(f"the cluster can't be reached: {message}; run the buildspec's line with update-kubeconfig again")


def upgrade(wanted: Release, cluster: Cluster, reference: str) -> None:
    values = [f"--values={file}" for file in wanted.release_values]
    options = ["--install", "--rollback-on-failure", "--wait", "--wait-for-jobs", f"--timeout={timeout()}"]
    say(f"releasing {reference} into {cluster.namespace!r}, waiting until every pod is ready")
    cluster.helm("upgrade", wanted.name, f"oci://{reference}", *options, *values, "--registry-config", package.login())


def test(wanted: Release, cluster: Cluster, before: dict[str, Any]) -> None:
    """The chart's test; where it fails, what served before comes back."""
    tested = cluster.helm("test", wanted.name, "--logs", check=False)
    if tested.returncode == 0:
        return
    (state.FOLDER / "test.log").write_text(tested.stdout + tested.stderr)
    if before:
        cluster.helm("rollback", wanted.name, str(before["revision"]), "--wait", f"--timeout={timeout()}")
    last = [text.strip().splitlines()[-1] for text in (tested.stderr, tested.stdout) if text.strip()]
    raise DeployError(f"helm test failed (build/release/test.log): {'; '.join(last)}")


def revision(cluster: Cluster, name: str) -> dict[str, Any]:
    """The newest revision that helm keeps of a release; an empty one where there is none."""
    result = cluster.helm("history", name, "--max=1", "--output=json", check=False)
    return dict(json.loads(result.stdout)[-1]) if result.returncode == 0 else {}


def finish(wanted: Release, begun: str, status: str, found: dict[str, Any]) -> None:
    outcome = {"status": status, "started_at": begun, "finished_at": now(), "environment": wanted.environment}
    state.add(outcome=outcome | {"revision": found.get("revision")})


def diagnose(cluster: Cluster) -> None:
    """Keep what the namespace says about itself: pods, events, the last lines of each container."""
    parts = []
    for question in (["get", "pods", "-o", "wide"], ["get", "events", "--sort-by=.lastTimestamp"]):
        parts += [f"$ kubectl {' '.join(question)}", cluster.kubectl(*question, check=False).stdout]
    names = cluster.kubectl("get", "pods", "--output=name", check=False).stdout.split()
    for name in names:
        parts += [f"$ kubectl logs {name}"]
        parts += [cluster.kubectl("logs", name, "--all-containers", "--prefix", "--tail=50", check=False).stdout]
    (state.FOLDER / "diagnosis.txt").write_text("\n".join(parts))


def timeout() -> str:
    return os.environ.get("RELEASE_TIMEOUT", TIMEOUT)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
