"""`flaskapp-deploy up`: build an application, install it with the chart, and send it a first request."""

import base64
import json
import secrets
import socket
import time
import uuid
from pathlib import Path
from typing import Any

import requests
import yaml
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from flaskapp_deploy.kubernetes import Cluster
from flaskapp_deploy.release.config import ReleaseConfig
from flaskapp_deploy.shell import DeployError, cache, locked, say, seconds
from flaskapp_deploy.up import doctor, recovery
from flaskapp_deploy.up.doctor import name_of
from flaskapp_deploy.up.target import Local, Target

INSTALL_TIMEOUT = 300  # seconds
ADMIN_SECRET = "flaskapp-admin"  # noqa: S105 - a name
DEPLOYMENT = {"service": "shop", "environment": "staging", "version": "1.0.0", "status": "succeeded"}


def up(release: ReleaseConfig, target: Target, wsgi: str = "", port: int | None = None) -> None:
    """Install or upgrade the release on the target, send a first request, and print what to try. Safe to repeat."""
    started = time.monotonic()
    say(f"target: {target.description}")
    target.up()
    cluster = target.cluster(release.namespace)
    ensure_namespace(cluster)
    claim_name(cluster, release)
    reference = target.deliver(release, wsgi)
    token = ensure_admin_token(cluster) if release.is_ledger else ""
    with locked(cache() / f"release-{release.namespace}-{release.name}.lock", "waiting for another `up` of it to end"):
        if target.is_ours:  # on another cluster, helm may be at work on another machine
            recovery.free(cluster, release.name)
        install(cluster, release, reference)
    service = service_of(cluster, release)
    with target.reach(cluster, service, port) as url:
        lines = request_ledger(url, token, cluster) if release.is_ledger else request(url, cluster, service)
    if not isinstance(target, Local):  # its port-forward has ended
        lines.insert(0, f"{cluster.kubectl_line} port-forward service/{service} {url.rpartition(':')[2]}:http &")
    say(f"{release.name} is up after {time.monotonic() - started:.0f} s")
    lines += [f"{cluster.kubectl_line} get pods,hpa,pvc", *(["make shell"] if isinstance(target, Local) else [])]
    print(f"\n{release.name} answers on {url}. Send requests, look around, delete it:\n")
    print("\n".join(f"  {line}" for line in (*lines, f"make down NAME={release.name}")))


def ensure_namespace(cluster: Cluster) -> None:
    """Create the namespace where there is none, enforcing Pod Security `restricted`."""
    if cluster.kubectl("get", "namespace", cluster.namespace, check=False).returncode == 0:
        return
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    create(cluster, "Namespace", cluster.namespace, labels=labels)


def create(cluster: Cluster, kind: str, name: str, labels: dict[str, str] | None = None, **content: Any) -> None:
    """Create an object of the core API."""
    metadata = {"name": name, "labels": labels or {}}
    manifest = {"apiVersion": "v1", "kind": kind, "metadata": metadata, **content}
    cluster.kubectl("create", "-f", "-", stdin=yaml.safe_dump(manifest))


def claim_name(cluster: Cluster, release: ReleaseConfig) -> None:
    """Record in a ConfigMap which directory the release is built from; fail where another one made it."""
    name = f"{release.name}-source"
    data = {"host": socket.gethostname(), "directory": str(release.application.resolve())}
    stdout = cluster.kubectl("get", "configmap", name, "--ignore-not-found", "--output", "json").stdout
    if stdout:
        source = json.loads(stdout)["data"]
        if source == data:
            return
        # A directory that no longer exists on this machine was most likely moved: the same application.
        if source["host"] != data["host"] or Path(source["directory"]).exists():
            raise DeployError(
                f"the name {release.name!r} is taken by {source['directory']} on {source['host']}\n"
                f"  choose another one: NAME={release.name}-2\n"
                f"  or, if this is the same application: {cluster.kubectl_line} delete configmap {name}"
            )
        cluster.kubectl("delete", "configmap", name)
    create(cluster, "ConfigMap", name, data=data)


def begin_anew(cluster: Cluster, release: ReleaseConfig) -> None:
    """Clear earlier failures: unchanged objects keep theirs, and helm takes it for this release's.

    A migration Job that failed is deleted; a Deployment past its progress deadline is restarted.
    """
    for item in cluster.objects("jobs,deployments", of(release)):
        name, labels = item["metadata"]["name"], item["metadata"]["labels"]
        is_migration = labels.get("app.kubernetes.io/component") == "migration"
        if item["kind"] == "Job" and is_migration and doctor.condition(item, "Failed"):
            say(f"the last migration failed; removing its Job {name}, so that it runs again")
            cluster.kubectl("delete", "job", name)
        elif item["kind"] == "Deployment" and doctor.condition(item, "Progressing", "False"):
            say(f"the last rollout of {name} did not end in time; restarting it")
            cluster.kubectl("rollout", "restart", f"deployment/{name}")


def ensure_admin_token(cluster: Cluster) -> str:
    """Return the ledger's first token from its Secret, which is created where there is none."""
    result = cluster.kubectl("get", "secret", ADMIN_SECRET, "--output", "json", check=False)
    if result.returncode == 0:
        return base64.b64decode(json.loads(result.stdout)["data"]["API_ADMIN_TOKEN"]).decode()
    token = secrets.token_urlsafe(32)
    create(cluster, "Secret", ADMIN_SECRET, stringData={"API_ADMIN_TOKEN": token})
    return token


def install(cluster: Cluster, release: ReleaseConfig, reference: str) -> None:
    """Run `helm upgrade --install` and wait; a failure is explained by the doctor."""
    repository, _, tag = reference.rpartition(":")
    values = [f"--values={file}" for file in release.values]
    values += [f"--set=image.repository={repository}", f"--set-string=image.tag={tag}"]
    if (release.chart / "Chart.lock").is_file():  # one without has its subcharts inside, or none
        cluster.helm("dependency", "build", str(release.chart))
    upgrade = ["upgrade", release.name, str(release.chart), "--install", *values]
    limit = f"--timeout={seconds(INSTALL_TIMEOUT):.0f}s"
    if revision := current_revision(cluster, release, upgrade):
        say(f"nothing has changed since revision {revision} of {release.name!r}; waiting until every pod is ready")
        names = [name_of(one) for one in cluster.objects("deployments,statefulsets", of(release))]
        results = [cluster.kubectl("rollout", "status", name, limit, check=False) for name in names]
    else:
        say(f"installing {release.chart.name} as {release.name!r}, waiting until every pod is ready")
        begin_anew(cluster, release)
        results = [cluster.helm(*upgrade, "--wait", "--wait-for-jobs", limit, check=False)]
    for result in results:
        if result.returncode:
            message = f"helm upgrade {release.name} failed: {result.stderr.strip().removeprefix('Error: ')}"
            raise DeployError("\n".join([message, *causes(cluster, release.name)]))


def current_revision(cluster: Cluster, release: ReleaseConfig, upgrade: list[str]) -> int:
    """Return the revision that an upgrade would only repeat: the cluster has the same objects, and no other; else 0."""
    revisions = doctor.history(cluster, release.name)
    if not revisions or revisions[-1]["status"] != "deployed":
        return 0
    result = cluster.helm(*upgrade, "--dry-run=server", "--output=json", check=False)
    if result.returncode:  # the upgrade itself will say it
        return 0
    planned, installed = json.loads(result.stdout)["manifest"], cluster.helm("get", "manifest", release.name).stdout
    is_same = objects_in(planned) == objects_in(installed)
    if not is_same or cluster.kubectl("diff", "--filename=-", stdin=planned, check=False).returncode:
        return 0
    return int(revisions[-1]["revision"])


def objects_in(manifest: str) -> set[tuple[str, str]]:
    """Kind and name of each object."""
    return {(item["kind"], item["metadata"]["name"]) for item in yaml.safe_load_all(manifest) if item}


def of(release: ReleaseConfig) -> str:
    """The selector of a release's objects."""
    return f"app.kubernetes.io/instance={release.name}"


def causes(cluster: Cluster, release: str) -> list[str]:
    """Return the doctor's findings; none where helm refused before it created a release."""
    try:
        return list(map(str, doctor.examine(cluster, release)))
    except DeployError:
        return []


def service_of(cluster: Cluster, release: ReleaseConfig) -> str:
    """Return the name of the application's Service."""
    selector = f"{of(release)},app.kubernetes.io/component=web"
    for service in cluster.objects("services", selector):
        return str(service["metadata"]["name"])
    raise DeployError(f"release {release.name!r} has no Service with the labels {selector}")


def request_ledger(url: str, token: str, cluster: Cluster) -> list[str]:
    """Read an example's deployment through the Service, posted the first time; return lines for the shell."""
    example = f"{url}/api/v1/deployments?service={DEPLOYMENT['service']}&environment={DEPLOYMENT['environment']}"
    if json.loads(fetch(example))["items"]:
        say("the ledger has the example's deployment")
    else:
        posted = json.loads(fetch(f"{url}/api/v1/deployments", DEPLOYMENT, token))
        read = json.loads(fetch(f"{url}/api/v1/deployments/{posted['id']}"))
        if read["version"] != DEPLOYMENT["version"]:
            raise DeployError(f"the ledger answered another deployment than the one posted: {read}")
        say(f"posted an example's deployment and read it back: {read['id']}")
    secret = f"get secret {ADMIN_SECRET} --template '{{{{.data.API_ADMIN_TOKEN | base64decode}}}}'"
    return [
        f"TOKEN=$({cluster.kubectl_line} {secret})",
        f"curl -s {url}/api/v1/deployments -H \"Authorization: Bearer $TOKEN\" --json '{json.dumps(DEPLOYMENT)}'",
        f"curl -s {url}/api/v1/deployments",
        f"curl -s {url}/api/v1/services/{DEPLOYMENT['service']}",
    ]


def request(url: str, cluster: Cluster, service: str) -> list[str]:
    """Request the path of the readiness probe, or `/`; return a curl line that does the same."""
    deployment = json.loads(cluster.kubectl("get", "deployment", service, "--output", "json").stdout)
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    path = container.get("readinessProbe", {}).get("httpGet", {}).get("path", "")
    answer = send(f"{url}{path or '/'}")
    # Nothing says that the application has a page at `/`; only an error of its own is one.
    if answer.status_code >= (400 if path else 500):
        raise refusal(answer)
    shown = answer.text.strip()[:100] if answer.status_code == 200 else f"{answer.status_code} {answer.reason}"
    say(f"GET {path or '/'}: {shown}")
    return [f"curl -s {url}{path or '/'}"]


def fetch(url: str, body: object = None, token: str = "") -> bytes:
    """GET, or POST `body` as JSON; return the content of a success."""
    answer = send(url, body, token)
    if not answer.ok:
        raise refusal(answer)
    return answer.content


def refusal(answer: requests.Response) -> DeployError:
    """Return the error for an answer that is no success."""
    return DeployError(f"{answer.url} answered {answer.status_code}: {answer.text[:300]}")


def send(url: str, body: object = None, token: str = "") -> requests.Response:
    """GET, or POST `body` as JSON. Silence and 503 are retried: a new pod may need some seconds."""
    # 409: the same POST, which an earlier attempt sent, is still at work.
    retries = Retry(20, status_forcelist=[409, 503], allowed_methods=None, backoff_factor=0.5, backoff_max=2)
    retries.raise_on_status = False
    headers = {"Idempotency-Key": str(uuid.uuid4())} | ({"Authorization": f"Bearer {token}"} if token else {})
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=retries))
        method = "GET" if body is None else "POST"
        try:
            # A redirect is an answer; it may lead to a host that only the Internet knows.
            return session.request(method, url, json=body, headers=headers, timeout=seconds(5), allow_redirects=False)
        except requests.RequestException as error:
            raise DeployError(f"{url} does not answer: {error}") from error
