"""Reports to the release ledger what was released: best effort, a release never fails because the ledger is down.

What can't be sent stays in release.json and in a ConfigMap of the namespace, and is sent at the next release.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import replace

import requests
import yaml
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from flaskapp_deploy.kubernetes import Cluster
from flaskapp_deploy.release import state
from flaskapp_deploy.release.config import ReleaseConfig
from flaskapp_deploy.release.release import now
from flaskapp_deploy.release.state import Outcome, ReleaseState
from flaskapp_deploy.shell import DeployError, say

SECONDS = 10
# A ConfigMap holds 1 MiB, and a report has less than 2 KiB.
MOST = 200
# The ledger will never take these, however often they are sent.
REFUSED = {400, 413, 415, 422}


def record(config: ReleaseConfig, cluster: Cluster) -> None:
    """Report this release's result to the ledger, after the results that earlier ones could not report."""
    release = state.find()
    if not release or not release.outcome:
        say("record: nothing was released, so there is nothing to report")
        return
    url = os.environ.get("LEDGER_URL", "").rstrip("/")
    if not url:
        say("record: LEDGER_URL is not set, so nothing is reported")
        return
    reports = pending_records(config, cluster) | {key(release, release.outcome): report(config, release)}
    pending, refused = send(url, reports)
    keep(config, cluster, pending)
    state.save(replace(release, pending_records=tuple(pending.values()), refused=tuple(refused)))
    sent = len(reports) - len(pending) - len(refused)
    say(f"record: {sent} sent" + (f", {len(pending)} kept for the next release" if pending else ""))


def report(config: ReleaseConfig, release: ReleaseState) -> str:
    """Return the body (JSON) of a POST to /api/v1/deployments."""
    outcome = state.require("release", release.outcome)
    ended = outcome.status != "started"
    body = {
        "service": config.name,
        "environment": outcome.environment,
        "version": release.version,
        "commit": release.commit,
        "committed_at": release.committed_at,
        "digest": state.require("push", release.image).digest,
        "chart_version": state.require("package", release.chart).version,
        # A build that was stopped during its release.
        "status": outcome.status if ended else "failed",
        "started_at": outcome.started_at,
        "finished_at": outcome.finished_at if ended else now(),
        "actor": os.environ.get("CODEBUILD_INITIATOR") or "pipeline",
        "link": os.environ.get("CODEBUILD_BUILD_URL") or None,
    }
    return json.dumps({name: value for name, value in body.items() if value is not None}, sort_keys=True)


def key(release: ReleaseState, outcome: Outcome) -> str:
    """Return the Idempotency-Key: one for each attempt. Also a key of a ConfigMap, so without `:`."""
    return f"{release.commit[:12]}-{outcome.started_at}".replace(":", "").replace("+", "-")


def send(url: str, reports: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """POST each report, oldest first; return those that could not be sent, and the answers to those refused."""
    pending, refused = dict(reports), []
    with requests.Session() as session:
        retries = Retry(total=3, backoff_factor=0.5, status_forcelist=[429, 502, 503, 504], allowed_methods=None)
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=retries))
        session.headers["Content-Type"] = "application/json"
        if token := os.environ.get("LEDGER_TOKEN"):
            session.headers["Authorization"] = f"Bearer {token}"
        for name, body in reports.items():
            try:
                answer = session.post(
                    f"{url}/api/v1/deployments", body, headers={"Idempotency-Key": name}, timeout=SECONDS
                )
            except requests.RequestException as error:
                say(f"record: the ledger at {url} does not answer: {_reason(error)}")
                break
            if answer.ok or answer.status_code in REFUSED:
                del pending[name]
            if not answer.ok:
                say(f"record: the ledger at {url} answered {answer.status_code}: {answer.text[:300]}")
            if answer.status_code in REFUSED:
                refused.append(answer.text[:300])
    return pending, refused


def pending_records(config: ReleaseConfig, cluster: Cluster) -> dict[str, str]:
    """Return results that earlier releases could not report, oldest first; none where the cluster does not answer."""
    result = cluster.kubectl("get", "configmap", _name(config), "--output=json", check=False)
    data = json.loads(result.stdout).get("data", {}) if result.returncode == 0 else {}
    return dict(sorted(data.items(), key=lambda item: str(json.loads(item[1])["started_at"])))


def keep(config: ReleaseConfig, cluster: Cluster, pending: Mapping[str, str]) -> None:
    """Put what is pending into the ConfigMap, or remove it where nothing is."""
    try:
        if not pending:
            cluster.kubectl("delete", "configmap", _name(config), "--ignore-not-found")
            return
        metadata = {"name": _name(config), "labels": {"app.kubernetes.io/managed-by": "pipeline"}}
        data = dict(list(pending.items())[-MOST:])
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
        cluster.kubectl("apply", "--server-side", "--field-manager=pipeline", "-f", "-", stdin=yaml.safe_dump(body))
    except DeployError as error:
        say(f"record: kept in release.json alone: {error}")


def _name(config: ReleaseConfig) -> str:
    return f"{config.name}-pending-records"


def _reason(error: requests.RequestException) -> str:
    """The innermost cause, in one line."""
    cause: BaseException = error
    while cause.__context__ is not None:
        cause = cause.__context__
    return str(cause).splitlines()[0]
