"""Tell the release ledger what was released: best effort, so that a release never fails because the ledger is away.

What can't be told stays in release.json and in a ConfigMap of the namespace, and is told at the next release.
"""

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import requests
import yaml
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from flaskapp_deploy.kubernetes import Cluster
from flaskapp_deploy.release import state
from flaskapp_deploy.release.config import Release
from flaskapp_deploy.shell import DeployError, say

SECONDS = 10
# A ConfigMap holds 1 MiB, and a report has less than 2 KiB.
KEPT = 200
# The ledger will never take these, however often they are told.
REFUSED = {400, 413, 415, 422}


def record(wanted: Release, cluster: Cluster) -> None:
    """Report this release's result to the ledger, after the results that earlier ones could not report."""
    known = state.read()
    if "outcome" not in known:
        say("record: nothing was released, so there is nothing to report")
        return
    url = os.environ.get("LEDGER_URL", "").rstrip("/")
    waiting = pending_records(wanted, cluster) | {key(known): json.dumps(report(wanted, known), sort_keys=True)}
    if not url:
        say("record: LEDGER_URL is not set, so nobody is told")
        return
    left, refused = send(url, waiting)
    keep(wanted, cluster, left)
    state.add(pending_records=list(left.values()), refused=refused)
    told = len(waiting) - len(left) - len(refused)
    say(f"record: {told} told" + (f", {len(left)} kept for the next release" if left else ""))


def report(wanted: Release, known: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a POST to /api/v1/deployments."""
    outcome, now = known["outcome"], datetime.now(UTC).isoformat(timespec="seconds")
    ended = outcome["status"] != "started"
    body = {
        "service": wanted.name,
        "environment": outcome["environment"],
        "version": known["version"],
        "commit": known["commit"],
        "committed_at": known["committed_at"],
        "digest": known["image"]["digest"],
        "chart_version": known["chart"]["version"],
        # A build that was stopped amid its release.
        "status": outcome["status"] if ended else "failed",
        "started_at": outcome["started_at"],
        "finished_at": outcome["finished_at"] if ended else now,
        "actor": os.environ.get("CODEBUILD_INITIATOR") or "pipeline",
        "link": os.environ.get("CODEBUILD_BUILD_URL") or None,
    }
    return {name: value for name, value in body.items() if value is not None}


def key(known: Mapping[str, Any]) -> str:
    """The Idempotency-Key: one for each attempt. Also a key of a ConfigMap, so without `:`."""
    return f"{known['commit'][:12]}-{known['outcome']['started_at']}".replace(":", "").replace("+", "-")


def send(url: str, waiting: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """POST each report, oldest first; return those that could not be told, and what was said to those refused."""
    left, refused = dict(waiting), []
    with requests.Session() as session:
        retries = Retry(total=3, backoff_factor=0.5, status_forcelist=[429, 502, 503, 504], allowed_methods=None)
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=retries))
        session.headers["Content-Type"] = "application/json"
        if token := os.environ.get("LEDGER_TOKEN"):
            session.headers["Authorization"] = f"Bearer {token}"
        for name, body in waiting.items():
            try:
                answer = session.post(
                    f"{url}/api/v1/deployments", body, headers={"Idempotency-Key": name}, timeout=SECONDS
                )
            except requests.RequestException as error:
                say(f"record: the ledger at {url} does not answer: {_reason(error)}")
                break
            if answer.ok or answer.status_code in REFUSED:
                del left[name]
            if not answer.ok:
                say(f"record: the ledger at {url} answered {answer.status_code}: {answer.text[:300]}")
            if answer.status_code in REFUSED:
                refused.append(answer.text[:300])
    return left, refused


def pending_records(wanted: Release, cluster: Cluster) -> dict[str, str]:
    """Results that earlier releases could not report, oldest first; none where the cluster can't be reached."""
    result = cluster.kubectl("get", "configmap", _name(wanted), "--output=json", check=False)
    data = json.loads(result.stdout).get("data", {}) if result.returncode == 0 else {}
    return dict(sorted(data.items(), key=lambda item: str(json.loads(item[1])["started_at"])))


def keep(wanted: Release, cluster: Cluster, left: Mapping[str, str]) -> None:
    """Put what is left into the ConfigMap, or remove it where nothing is."""
    try:
        if not left:
            cluster.kubectl("delete", "configmap", _name(wanted), "--ignore-not-found")
            return
        metadata = {"name": _name(wanted), "labels": {"app.kubernetes.io/managed-by": "pipeline"}}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": dict(list(left.items())[-KEPT:])}
        cluster.kubectl("apply", "--server-side", "--field-manager=pipeline", "-f", "-", stdin=yaml.safe_dump(body))
    except DeployError as error:
        say(f"record: kept in release.json alone: {error}")


def _name(wanted: Release) -> str:
    return f"{wanted.name}-pending-records"


def _reason(error: requests.RequestException) -> str:
    """The innermost cause, in one line."""
    cause: BaseException = error
    while cause.__context__ is not None:
        cause = cause.__context__
    return str(cause).splitlines()[0]
