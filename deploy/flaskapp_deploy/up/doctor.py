"""`flaskapp-deploy doctor`: explain why a release is not ready. It only reads."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from flaskapp_deploy import logcause
from flaskapp_deploy.cluster import lifecycle
from flaskapp_deploy.kubernetes import Cluster
from flaskapp_deploy.shell import DeployError, reason
from flaskapp_deploy.up import probes, target
from flaskapp_deploy.up.probes import Object

KINDS = "deployments,statefulsets,jobs,pods,persistentvolumeclaims,horizontalpodautoscalers"
CANNOT_PULL = {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "RegistryUnavailable"}
WRONG_PASSWORD = re.compile(r'.*(password authentication failed for user "[^"]*")')
TAIL = "--tail=1000"
ROTATION = (
    "make Secret and server agree; the bundled server takes the Secret's password over by itself, within 3 minutes"
)


@dataclass(frozen=True)
class Finding:
    """One cause, where it is, and what to do about it."""

    where: str
    what: str
    next: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}. Next: {self.next}"


def cluster_of(context: str, instance: str, namespace: str) -> Cluster:
    """The cluster that `make up` would take; nothing is made."""
    chosen = target.choose(context, instance)
    if isinstance(chosen, target.Local):
        return Cluster(lifecycle.existing(instance).kubeconfig, "", namespace)
    return Cluster(None, chosen.context, namespace)


def examine(cluster: Cluster, release: str) -> list[Finding]:
    """Return what keeps the release from being ready; nothing where it is.

    Raises:
        DeployError: the cluster doesn't answer, or the namespace has no such release.
    """
    doctor = Doctor(cluster, release)
    causes = [*doctor.refused(), *doctor.claims(), *doctor.migration(), *doctor.pods()]
    # A pod that waits for the migration or the database is an effect, not a cause.
    causes = [*doctor.helm(), *causes, *doctor.unmet_probes(explained=bool(causes)), *doctor.autoscaler()]
    return merged(causes) or list(doctor.unready())


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
        self.revisions = self._history()
        selector = f"app.kubernetes.io/instance={release}"
        result = cluster.kubectl("get", KINDS, "--selector", selector, "--output", "json")
        self.objects: list[Object] = json.loads(result.stdout)["items"]
        events = json.loads(cluster.kubectl("get", "events", "--output", "json").stdout)["items"]
        self.events: list[Object] = sorted(
            events, key=lambda one: one.get("lastTimestamp") or one.get("eventTime") or ""
        )

    def _history(self) -> list[Object]:
        command = ["history", self.release, "--max=20", "--output=json"]
        result = self.cluster.helm(*command, check=False)
        if result.returncode and "not found" in result.stderr:
            raise DeployError(
                f"there is no release {self.release!r} in the namespace {self.cluster.namespace!r};"
                " `helm list --all-namespaces` says which there are"
            )
        if result.returncode:
            raise DeployError(f"helm history failed: {reason(result).removeprefix('Error: ')}")
        return list(json.loads(result.stdout))

    # --- causes ------------------------------------------------------------------------------------------------------

    def helm(self) -> Iterator[Finding]:
        """Find a lock that an interrupted helm left, or a failed revision."""
        last, options = self.revisions[-1], f"--namespace {self.cluster.namespace}"
        where = f"release/{self.release} revision {last['revision']}"
        if last["status"].startswith("pending-"):
            good = [one["revision"] for one in self.revisions if one["status"] in {"deployed", "superseded"}]
            back = good[-1] if good else last["revision"]
            yield Finding(
                where,
                f"{last['status']} since {last['updated'][:19]}: helm is at work, or was ended and left its lock",
                f"if no helm runs, `helm rollback {self.release} {back} {options}`, then the same upgrade again",
            )
        elif last["status"] == "failed":
            yield Finding(
                where,
                f"failed: {last['description'][:160]}",
                f"correct the cause and upgrade again, or `helm rollback {self.release} {options}`",
            )

    def refused(self) -> Iterator[Finding]:
        """Find pods that the API server refuses: a quota, a limit range, Pod Security."""
        for kind in ("Deployment", "StatefulSet", "Job"):
            for one in self._of(kind):
                if message := self._refusal(one):
                    yield Finding(name_of(one), *refusal(message))

    def claims(self) -> Iterator[Finding]:
        """Find volume claims that are not bound."""
        for claim in self._of("PersistentVolumeClaim"):
            if claim["status"].get("phase") == "Pending":
                storage = claim["spec"].get("storageClassName", "of the cluster's default class")
                reason = self._event(claim, "ProvisioningFailed", "FailedBinding")
                waits = reason or self._event(claim) or "no event says why yet"
                yield Finding(
                    name_of(claim),
                    f"the volume is pending ({storage}): {waits}",
                    "delete the claim, and name a class of `kubectl get storageclass` in persistence.storageClass",
                )

    def migration(self) -> Iterator[Finding]:
        """Find a migration Job that failed, or that fails and is retried."""
        for job in self._of("Job"):
            failed = condition(job, "Failed")
            attempts = job["status"].get("failed", 0)
            component = job["metadata"]["labels"].get("app.kubernetes.io/component", "job")
            if not failed and (not attempts or condition(job, "Complete")):
                continue
            message = self._last_words(f"job/{job['metadata']['name']}", "--all-containers")
            what = (
                f"the {component} failed" if failed else f"the {component} failed {attempts} times and is tried again"
            )
            again = "raise migrations.retry to run it again" if component == "migration" else "run it again"
            yield Finding(name_of(job), f"{what}: {message}", f"correct the cause and release it, or {again}")

    def pods(self) -> Iterator[Finding]:
        """Pods that are not scheduled, can't start, or end again and again."""
        for pod in self._of("Pod"):
            if "deletionTimestamp" not in pod["metadata"] and pod["status"].get("phase") in {"Pending", "Running"}:
                yield from self._pod(pod)

    def unmet_probes(self, *, explained: bool) -> Iterator[Finding]:
        """Find containers that run and fail a probe; `explained`: a cause was found, and silence may be its effect."""
        for pod, status in self._running_containers():
            failure = probes.unmet(pod, status, self._events(pod))
            if failure and not (explained and (failure.needs_log or not self._values(pod, status, failure.kind))):
                yield self._failing(pod, status, failure)

    def autoscaler(self) -> Iterator[Finding]:
        """Find an autoscaler without metrics."""
        for one in self._of("HorizontalPodAutoscaler"):
            active = condition(one, "ScalingActive", "False")
            if active and active["reason"] != "ScalingDisabled":
                yield Finding(
                    name_of(one),
                    f"the autoscaler has no metrics: {short(active['message'])}",
                    "`kubectl get apiservice v1beta1.metrics.k8s.io` says whether it is served; new pods need a minute",
                )

    def unready(self) -> Iterator[Finding]:
        """Find what is not ready, when there is no better explanation."""
        for pod, status in self._running_containers():
            if asked := probes.silent(pod, status):
                yield Finding(
                    f"{name_of(pod)} ({status['name']})",
                    f"{asked} has not succeeded, and no event says what came back",
                    self._later(),
                )
        for kind in ("Deployment", "StatefulSet"):
            for one in self._of(kind):
                wanted, ready = one["spec"].get("replicas", 1), one["status"].get("readyReplicas", 0)
                updated = one["status"].get("updatedReplicas", 0)
                if min(ready, updated) < wanted:
                    yield Finding(
                        name_of(one),
                        f"{ready} of {wanted} pods are ready, {updated} of them new, and no cause is visible yet",
                        self._later(),
                    )

    def _later(self) -> str:
        return f"wait a minute and run this again; `kubectl --namespace {self.cluster.namespace} describe pods`"

    # --- pods --------------------------------------------------------------------------------------------------------

    def _pod(self, pod: Object) -> Iterator[Finding]:
        where = name_of(pod)
        unscheduled = condition(pod, "PodScheduled", "False")
        if unscheduled:
            if "unbound immediate PersistentVolumeClaims" not in unscheduled["message"]:  # the claim says more
                yield Finding(
                    where,
                    f"no node takes the pod: {short(unscheduled['message'])}",
                    "lower resources.requests, correct nodeSelector, affinity and tolerations, or add a node",
                )
            return
        containers = [*pod["status"].get("initContainerStatuses", []), *pod["status"].get("containerStatuses", [])]
        for one in containers:
            yield from self._container(pod, one)
        mount = self._event(pod, "FailedMount")
        if mount and all("waiting" in one["state"] for one in containers):
            yield Finding(where, f"a volume can't be mounted: {short(mount)}", "make the object that it names")

    def _container(self, pod: Object, status: Object) -> Iterator[Finding]:
        name = status["name"]
        where = f"{name_of(pod)} ({name})"
        waiting = status["state"].get("waiting", {})
        reason = waiting.get("reason", "")
        ended = status["state"].get("terminated") or status.get("lastState", {}).get("terminated") or {}
        if reason in CANNOT_PULL:
            message = self._event(pod, "Failed") or waiting.get("message", reason)
            yield Finding(
                where,
                f"the image {status['image']} can't be pulled: {short(message)}",
                "correct image.repository, image.tag or image.digest, or name a Secret in image.pullSecrets",
            )
        elif reason == "CreateContainerConfigError":
            yield Finding(
                where, f"a setting is missing: {waiting['message']}", "make the Secret or ConfigMap, with that key"
            )
        elif reason in {"CreateContainerError", "RunContainerError"} or ended.get("reason") == "StartError":
            yield Finding(where, f"it can't be started: {short(waiting.get('message', ''))}", "correct `command`")
        elif status["restartCount"] and not status["ready"] and ended.get("reason") == "OOMKilled":
            yield Finding(
                where,
                f"out of memory, {status['restartCount']} restarts",
                "raise resources.limits.memory or lower workers",
            )
        elif failure := probes.fatal(pod, status, self._events(pod), self.now):
            yield self._failing(pod, status, failure)
        elif reason == "CrashLoopBackOff" or self._ends_again(status, ended):
            message = self._last_words(pod["metadata"]["name"], f"--container={name}", "--previous")
            yield Finding(
                where,
                f"it ends again and again (exit code {ended.get('exitCode', 'unknown')}): {message}",
                f"`kubectl --namespace {self.cluster.namespace} logs {pod['metadata']['name']} -c {name} --previous`",
            )
        elif "running" in status["state"] and name != "postgresql":  # the server names whomever it refused
            yield from self._running(pod, status, where)

    def _running(self, pod: Object, status: Object, where: str) -> Iterator[Finding]:
        """Find a login that the database refuses, in the log of a running container."""
        log = self._log(pod["metadata"]["name"], f"--container={status['name']}", "--since=45s", "--tail=40")
        refused = [match[1] for line in log.splitlines() if (match := WRONG_PASSWORD.match(line))]
        if refused:
            yield Finding(where, f"the database refuses the login: {refused[-1]}", ROTATION)

    def _failing(self, pod: Object, status: Object, failure: probes.Failure) -> Finding:
        name, container = pod["metadata"]["name"], status["name"]
        where, what = f"{name_of(pod)} ({container})", str(failure)
        values = self._values(pod, status, failure.kind)
        if failure.needs_log:
            log = self._log(name, f"--container={container}", TAIL, *(["--previous"] if failure.kills else []))
            if message := logcause.trouble(log):
                what += f"; its log says: {short(message)}"
        if not values:
            return Finding(where, what, f"`kubectl --namespace {self.cluster.namespace} logs {name} -c {container}`")
        return Finding(where, what, failure.remedy(values))

    # --- looking -----------------------------------------------------------------------------------------------------

    def _running_containers(self) -> Iterator[tuple[Object, Object]]:
        for pod in self._of("Pod"):
            if "deletionTimestamp" not in pod["metadata"] and pod["status"].get("phase") == "Running":
                statuses = [*pod["status"].get("initContainerStatuses", []), *pod["status"]["containerStatuses"]]
                yield from ((pod, status) for status in statuses if "running" in status["state"])

    def _events(self, one: Object) -> list[Object]:
        return [event for event in self.events if event["involvedObject"].get("uid") == one["metadata"]["uid"]]

    def _values(self, pod: Object, status: Object, kind: str) -> str:
        return probes.values_path(status, pod["metadata"].get("labels", {}), kind)

    def _ends_again(self, status: Object, ended: Object) -> bool:
        """Whether the container was restarted more than once, and recently."""
        if status["restartCount"] < 2 or status["ready"]:
            return False
        finished = ended.get("finishedAt")
        return not finished or self.now - probes.moment(finished) <= probes.HISTORY

    def _of(self, kind: str) -> list[Object]:
        return [one for one in self.objects if one["kind"] == kind]

    def _refusal(self, owner: Object) -> str:
        """The API server's reason for refusing this object's pods; empty if it does not."""
        if owner["kind"] == "Deployment":
            failure = condition(owner, "ReplicaFailure")
            return str(failure["message"]) if failure else ""
        status = owner["status"]
        if owner["kind"] == "StatefulSet" and status.get("replicas", 0) >= owner["spec"].get("replicas", 1):
            return ""
        if owner["kind"] == "Job" and (status.get("active") or status.get("conditions")):
            return ""
        return self._event(owner, "FailedCreate")

    def _event(self, one: Object, *reasons: str) -> str:
        """The message of the last event of an object, for one of these reasons or any."""
        messages = [event["message"] for event in self._events(one) if not reasons or event["reason"] in reasons]
        return " ".join(messages[-1].split()) if messages else ""

    def _log(self, pod: str, *options: str) -> str:
        return self.cluster.kubectl("logs", pod, *options, check=False).stdout

    def _last_words(self, pod: str, *options: str) -> str:
        """Why it ended: the exception of a traceback, or the last line of the log that says something."""
        log = self._log(pod, TAIL, *options)
        if not log and "--previous" in options:  # the node may have removed it
            log = self._log(pod, TAIL, *(one for one in options if one != "--previous"))
        return short(logcause.cause(log))


def condition(one: Object, kind: str, status: str = "True") -> Object | None:
    """Return the condition of this type, if it has this status."""
    conditions = one["status"].get("conditions") or []
    return next((dict(each) for each in conditions if (each["type"], each["status"]) == (kind, status)), None)


def refusal(message: str) -> tuple[str, str]:
    """Explain the API server's refusal of a pod: what it means, and what to do."""
    if "exceeded quota" in message:
        return (
            f"the namespace's quota is used up: {short(message)}",
            "raise the ResourceQuota, or lower resources.requests",
        )
    if "violates PodSecurity" in message:
        return f"Pod Security refuses the pods: {short(message)}", "correct the securityContext in the values"
    return f"the pods are refused: {short(message)}", "correct what it names"


def name_of(one: Object) -> str:
    """Return `kind/name`, as kubectl takes it."""
    return f"{one['kind'].lower()}/{one['metadata']['name']}"


def short(text: str) -> str:
    """Return the text as one line of at most 240 characters."""
    line = " ".join(text.split()).rstrip(".")
    return line if len(line) <= 240 else f"{line[:237]}…"
