"""Reports to the release ledger what was released: best effort, a release never fails because the ledger is down.

What can't be sent stays in release.json and in a ConfigMap of the namespace, and is sent at the next release.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import replace

import requests
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
    # One for each attempt, and a key of a ConfigMap, so without `:`.
    key = f"{release.commit[:12]}-{release.outcome.started_at}".replace(":", "").replace("+", "-")
    pending = send(url, pending_records(config, cluster) | {key: report(config, release, release.outcome)})
    keep(config, cluster, pending)
    state.save(replace(release, pending_records=tuple(pending.values())))
    if pending:
        say(f"record: {len(pending)} kept for the next release")


def report(config: ReleaseConfig, release: ReleaseState, outcome: Outcome) -> str:
    """Return the body (JSON) of a POST to /api/v1/deployments."""
    if outcome.status == "started":  # a build that was stopped during its release
        outcome = replace(outcome, status="failed", finished_at=now())
    body = {
        "service": config.name,
        "environment": outcome.environment,
        "version": release.version,
        "commit": release.commit,
        "committed_at": release.committed_at,
        "digest": state.require("push", release.image).digest,
        "chart_version": release.chart_version,
        "status": outcome.status,
        "started_at": outcome.started_at,
        "finished_at": outcome.finished_at,
        "actor": os.environ.get("CODEBUILD_INITIATOR") or "pipeline",
        "link": os.environ.get("CODEBUILD_BUILD_URL") or None,
    }
    return json.dumps({name: value for name, value in body.items() if value is not None}, sort_keys=True)


def send(url: str, reports: Mapping[str, str]) -> dict[str, str]:
    """POST each report, oldest first, with its Idempotency-Key; return those that can be sent later."""
    pending = dict(reports)
    with requests.Session() as session:
        retries = Retry(total=3, backoff_factor=0.5, status_forcelist=[429, 502, 503, 504], allowed_methods=None)
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=retries))
        session.headers["Content-Type"] = "application/json"
        if token := os.environ.get("LEDGER_TOKEN"):
            session.headers["Authorization"] = f"Bearer {token}"
        for name, body in reports.items():
            headers = {"Idempotency-Key": name}
            try:
                answer = session.post(f"{url}/api/v1/deployments", body, headers=headers, timeout=SECONDS)
            except requests.RequestException as error:
                say(f"record: the ledger at {url} does not answer: {_reason(error)}")
                break
            if answer.ok or answer.status_code in REFUSED:
                del pending[name]
            problem = "" if answer.ok else f": {answer.text[:300]}"
            say(f"record: the ledger at {url} answered {answer.status_code}{problem}")
    return pending


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
        cluster.kubectl("apply", "--server-side", "--field-manager=pipeline", "-f", "-", stdin=json.dumps(body))
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
