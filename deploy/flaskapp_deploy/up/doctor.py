"""`flaskapp-deploy doctor`: explain why a release is not ready. It only reads."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from flaskapp_deploy import logcause
from flaskapp_deploy.kubernetes import Cluster
from flaskapp_deploy.shell import DeployError, reason
from flaskapp_deploy.up.probes import Container, Failure, Object, short, time_of

KINDS = "deployments,statefulsets,jobs,pods,persistentvolumeclaims,horizontalpodautoscalers"
CANNOT_PULL = {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "RegistryUnavailable"}
CANNOT_START = {"CreateContainerError", "RunContainerError"}
WRONG_PASSWORD = re.compile(r'.*(password authentication failed for user "[^"]*")')
TAIL = "--tail=1000"
REMEDIES = {
    "claim": "delete the claim, and name a class of `kubectl get storageclass` as its storageClass in the values:"
    " under postgresql.primary.persistence, persistence or backup.persistence",
    "image": "correct image.repository, image.tag or image.digest, or name a Secret in image.pullSecrets",
    "memory": "raise resources.limits.memory or lower workers",
    "metrics": "`kubectl get apiservice v1beta1.metrics.k8s.io` says whether it is served; new pods need a minute",
    "mount": "make the object that it names",
    "node": "lower resources.requests, correct nodeSelector, affinity and tolerations, or add a node",
    "password": "make Secret and server agree; the bundled server takes the Secret's password over by itself, within"
    " 3 minutes",
    "setting": "make the Secret or ConfigMap, with that key",
    "start": "correct `command`",
}


@dataclass(frozen=True)
class Finding:
    """One cause, where it is, and what to do about it."""

    where: str
    what: str
    next: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}. Next: {self.next}"


def examine(cluster: Cluster, release: str) -> list[Finding]:
    """Return what keeps the release from being ready; nothing where it is."""
    doctor = Doctor(cluster, release)
    causes = [*doctor.refused(), *doctor.claims(), *doctor.migration(), *doctor.pods()]
    # A pod that waits for the migration or the database is an effect, not a cause.
    causes = [*doctor.helm(), *causes, *doctor.unmet_probes(explained=bool(causes)), *doctor.autoscaler()]
    return merged(causes) or list(doctor.unready())


def history(cluster: Cluster, release: str) -> list[Object]:
    """Return the last revisions of a release, oldest first; none where there is no such release."""
    result = cluster.helm("history", release, "--max=20", "--output=json", check=False)
    if result.returncode and "not found" in result.stderr:
        return []
    if result.returncode:
        raise DeployError(f"helm history failed: {reason(result).removeprefix('Error: ')}")
    return list(json.loads(result.stdout))


def last_good(revisions: list[Object]) -> int:
    """Return the revision to go back to: the last that was installed, else the last of all."""
    good = [one["revision"] for one in revisions if one["status"] in {"deployed", "superseded"}]
    return int([revisions[-1]["revision"], *good][-1])


def merged(causes: list[Finding]) -> list[Finding]:
    """Join equal findings of several pods into one."""
    places: dict[tuple[str, str], list[str]] = {}
    for one in causes:
        places.setdefault((one.what, one.next), []).append(one.where)
    return [Finding(", ".join(dict.fromkeys(where)), *cause) for cause, where in places.items()]


class Doctor:
    """The objects, events and history of a release, read once, and what they explain."""

    def __init__(self, cluster: Cluster, release: str) -> None:
        self.cluster, self.release, self.now = cluster, release, datetime.now(UTC)
        self.in_namespace = f"--namespace {cluster.namespace}"
        self.revisions = history(cluster, release)
        if not self.revisions:
            raise DeployError(
                f"there is no release {release!r} in the namespace {cluster.namespace!r};"
                " `helm list --all-namespaces` says which there are"
            )
        self.objects = cluster.objects(KINDS, f"app.kubernetes.io/instance={release}")
        self.events = sorted(cluster.objects("events"), key=time_of)

    # --- causes ------------------------------------------------------------------------------------------------------

    def helm(self) -> Iterator[Finding]:
        """Find a lock that an interrupted helm left, or a failed revision."""
        last = self.revisions[-1]
        where = f"release/{self.release} revision {last['revision']}"
        if last["status"].startswith("pending-"):
            rollback = f"helm rollback {self.release} {last_good(self.revisions)} {self.in_namespace}"
            what = f"{last['status']} since {last['updated'][:19]}: helm is at work, or was ended and left its lock"
            yield Finding(where, what, f"if no helm runs, `{rollback}`, then the same upgrade again")
        elif last["status"] == "failed":
            remedy = f"correct the cause and upgrade again, or `helm rollback {self.release} {self.in_namespace}`"
            yield Finding(where, f"failed: {last['description'][:160]}", remedy)

    def refused(self) -> Iterator[Finding]:
        """Find pods that the API server refuses: a quota, a limit range, Pod Security."""
        for one in self._of("Deployment", "StatefulSet", "Job"):
            if message := self._refusal(one):
                yield Finding(name_of(one), *refusal(message))

    def claims(self) -> Iterator[Finding]:
        """Find volume claims that are not bound."""
        for claim in self._of("PersistentVolumeClaim"):
            if claim["status"].get("phase") == "Pending":
                storage = claim["spec"].get("storageClassName", "of the cluster's default class")
                waits = self._event(claim, "ProvisioningFailed", "FailedBinding") or self._event(claim)
                what = f"the volume is pending ({storage}): {waits or 'no event says why yet'}"
                yield Finding(name_of(claim), what, REMEDIES["claim"])

    def migration(self) -> Iterator[Finding]:
        """Find a migration Job that failed, or that fails and is retried."""
        for job in self._of("Job"):
            failed, attempts = condition(job, "Failed"), job["status"].get("failed", 0)
            if not failed and (not attempts or condition(job, "Complete")):
                continue
            component = job["metadata"]["labels"].get("app.kubernetes.io/component", "job")
            retried = "" if failed else f" {attempts} times and is tried again"
            pods = f"job/{job['metadata']['name']}"
            # What the command printed, before what the containers beside it did.
            ran = self._log(pods, "--container=migrate", "--tail=1")
            message = self._last_words(pods, "--container=migrate" if ran else "--all-containers")
            again = "raise migrations.retry to run it again" if component == "migration" else "run it again"
            remedy = f"correct the cause and release it, or {again}"
            yield Finding(name_of(job), f"the {component} failed{retried}: {message}", remedy)

    def pods(self) -> Iterator[Finding]:
        """Pods that are not scheduled, can't start, or end again and again."""
        for pod in self._of("Pod"):
            if "deletionTimestamp" not in pod["metadata"] and pod["status"].get("phase") in {"Pending", "Running"}:
                yield from self._pod(pod)

    def unmet_probes(self, *, explained: bool) -> Iterator[Finding]:
        """Find containers that run and fail a probe; `explained`: a cause was found, and silence may be its effect."""
        for one in self._running_containers():
            failure = one.unmet()
            if failure and not (explained and (failure.needs_log or not one.values_path(failure.kind))):
                yield self._failing(one, failure)

    def autoscaler(self) -> Iterator[Finding]:
        """Find an autoscaler without metrics."""
        for one in self._of("HorizontalPodAutoscaler"):
            active = condition(one, "ScalingActive", "False")
            if active and active["reason"] != "ScalingDisabled":
                what = f"the autoscaler has no metrics: {short(active['message'])}"
                yield Finding(name_of(one), what, REMEDIES["metrics"])

    def unready(self) -> Iterator[Finding]:
        """Find what is not ready, when there is no better explanation."""
        later = f"wait a minute and run this again; `kubectl {self.in_namespace} describe pods`"
        for container in self._running_containers():
            if request := container.silent():
                what = f"{request} has not succeeded, and no event says what came back"
                yield Finding(place_of(container), what, later)
        for one in self._of("Deployment", "StatefulSet"):
            wanted, ready = one["spec"].get("replicas", 1), one["status"].get("readyReplicas", 0)
            updated = one["status"].get("updatedReplicas", 0)
            if min(ready, updated) < wanted:
                what = f"{ready} of {wanted} pods are ready, {updated} of them new, and no cause is visible yet"
                yield Finding(name_of(one), what, later)

    # --- pods --------------------------------------------------------------------------------------------------------

    def _pod(self, pod: Object) -> Iterator[Finding]:
        if unscheduled := condition(pod, "PodScheduled", "False"):
            if "unbound immediate PersistentVolumeClaims" not in unscheduled["message"]:  # the claim says more
                what = f"no node takes the pod: {short(unscheduled['message'])}"
                yield Finding(name_of(pod), what, REMEDIES["node"])
            return
        containers = self._containers(pod)
        for one in containers:
            yield from self._container(one)
        mount = self._event(pod, "FailedMount")
        if mount and all("waiting" in one.status["state"] for one in containers):
            yield Finding(name_of(pod), f"a volume can't be mounted: {short(mount)}", REMEDIES["mount"])

    def _container(self, one: Container) -> Iterator[Finding]:
        where, pod, status = place_of(one), one.pod["metadata"]["name"], one.status
        waiting = status["state"].get("waiting", {})
        reason, message = waiting.get("reason", ""), waiting.get("message", "")
        if reason in CANNOT_PULL:
            message = self._event(one.pod, "Failed") or message or reason
            yield Finding(where, f"the image {status['image']} can't be pulled: {short(message)}", REMEDIES["image"])
        elif reason == "CreateContainerConfigError":
            yield Finding(where, f"a setting is missing: {message}", REMEDIES["setting"])
        elif reason in CANNOT_START or one.ended.get("reason") == "StartError":
            yield Finding(where, f"it can't be started: {short(message)}", REMEDIES["start"])
        elif status["restartCount"] and not status["ready"] and one.ended.get("reason") == "OOMKilled":
            yield Finding(where, f"out of memory, {status['restartCount']} restarts", REMEDIES["memory"])
        elif failure := one.fatal():
            yield self._failing(one, failure)
        elif reason == "CrashLoopBackOff" or one.ends_again:
            last_words = self._last_words(pod, f"--container={one.name}", "--previous")
            what = f"it ends again and again (exit code {one.ended.get('exitCode', 'unknown')}): {last_words}"
            yield Finding(where, what, f"`kubectl {self.in_namespace} logs {pod} -c {one.name} --previous`")
        elif one.is_running and one.name != "postgresql":  # the server names whomever it refused
            log = self._log(pod, f"--container={one.name}", "--since=45s", "--tail=40")
            refused = [match[1] for line in log.splitlines() if (match := WRONG_PASSWORD.match(line))]
            if refused:
                yield Finding(where, f"the database refuses the login: {refused[-1]}", REMEDIES["password"])

    def _failing(self, one: Container, failure: Failure) -> Finding:
        pod, what = one.pod["metadata"]["name"], str(failure)
        if failure.needs_log:
            log = self._log(pod, f"--container={one.name}", TAIL, *(["--previous"] if failure.kills else []))
            if message := logcause.trouble(log):
                what += f"; its log says: {short(message)}"
        values = one.values_path(failure.kind)
        look = f"`kubectl {self.in_namespace} logs {pod} -c {one.name}`"
        return Finding(place_of(one), what, failure.remedy(values) if values else look)

    # --- looking -----------------------------------------------------------------------------------------------------

    def _running_containers(self) -> Iterator[Container]:
        for pod in self._of("Pod"):
            if "deletionTimestamp" not in pod["metadata"] and pod["status"].get("phase") == "Running":
                yield from (one for one in self._containers(pod) if one.is_running)

    def _containers(self, pod: Object) -> list[Container]:
        statuses = [*pod["status"].get("initContainerStatuses", []), *pod["status"].get("containerStatuses", [])]
        return [Container(pod, status, self._events(pod), self.now) for status in statuses]

    def _events(self, one: Object) -> list[Object]:
        return [event for event in self.events if event["involvedObject"].get("uid") == one["metadata"]["uid"]]

    def _of(self, *kinds: str) -> list[Object]:
        return [one for kind in kinds for one in self.objects if one["kind"] == kind]

    def _refusal(self, owner: Object) -> str:
        """The API server's reason for refusing this object's pods; empty if it does not."""
        kind, status = owner["kind"], owner["status"]
        if kind == "Deployment":
            return str(condition(owner, "ReplicaFailure").get("message", ""))
        has_all = kind == "StatefulSet" and status.get("replicas", 0) >= owner["spec"].get("replicas", 1)
        is_at_work = kind == "Job" and (status.get("active") or status.get("conditions"))
        return "" if has_all or is_at_work else self._event(owner, "FailedCreate")

    def _event(self, one: Object, *reasons: str) -> str:
        """The message of the last event of an object, for one of these reasons or any."""
        messages = [event["message"] for event in self._events(one) if not reasons or event["reason"] in reasons]
        return " ".join(messages[-1].split()) if messages else ""

    def _log(self, pod: str, *options: str) -> str:
        return self.cluster.kubectl("logs", pod, *options, check=False).stdout

    def _last_words(self, pod: str, container: str, *previous: str) -> str:
        """Why it ended: the exception of a traceback, or the last line of the log that says something."""
        # The node may have removed the log of the run before.
        log = self._log(pod, TAIL, container, *previous) or self._log(pod, TAIL, container)
        return short(logcause.cause(log))


def condition(one: Object, kind: str, status: str = "True") -> Object:
    """Return the condition of this type, if it has this status; else an empty one."""
    conditions = one["status"].get("conditions") or []
    return next((dict(each) for each in conditions if (each["type"], each["status"]) == (kind, status)), {})


def refusal(message: str) -> tuple[str, str]:
    """Explain the API server's refusal of a pod: what it means, and what to do."""
    line = short(message)
    if "exceeded quota" in message:
        return f"the namespace's quota is used up: {line}", "raise the ResourceQuota, or lower resources.requests"
    if "violates PodSecurity" in message:
        return f"Pod Security refuses the pods: {line}", "correct the securityContext in the values"
    return f"the pods are refused: {line}", "correct what it names"


def name_of(one: Object) -> str:
    """Return `kind/name`, as kubectl takes it."""
    return f"{one['kind'].lower()}/{one['metadata']['name']}"


def place_of(one: Container) -> str:
    """Return the pod and, in parentheses, the container."""
    return f"{name_of(one.pod)} ({one.name})"
