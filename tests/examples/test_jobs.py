"""examples/jobs while pods are replaced: each job that the web pods accepted is done, and is done once.

A job takes 0.3 seconds, every 25th takes 5, so that each end of a worker meets jobs that run. With LONG=1: 2,000 jobs
or more, three upgrades, a rollback and a drained node; else 200 and one upgrade.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import requests

from flaskapp_deploy.cluster import lifecycle
from flaskapp_deploy.cluster.localcluster import LocalCluster
from flaskapp_deploy.kubernetes import Cluster
from tests.examples.own import WAIT, OwnExample
from tests.reliability.test_release import get, wait

LONG = bool(os.environ.get("LONG"))
JOBS = 2000 if LONG else 200
RATE = 10  # jobs a second; two workers of four threads do 16


class Clients:
    """Enqueue one job after another at a constant rate. None is sent twice: what fails is a lost job."""

    def __init__(self, example: OwnExample) -> None:
        self.example = example
        self.accepted: list[int] = []
        self.failures: list[str] = []
        self._enough = threading.Event()

    def enqueue(self, number: int) -> None:
        job = {"number": number, "seconds": 5 if number % 25 == 0 else 0.3}
        try:
            answer = self.example.ask("POST", "/jobs", json=job)
        except requests.RequestException as error:
            self.failures.append(f"job {number}: {error}")
            return
        if answer.status_code == 202:
            self.accepted.append(number)
        else:
            self.failures.append(f"job {number}: {answer.status_code} {answer.text[:200]}")

    def run(self) -> None:
        """Enqueue JOBS jobs, and more until it is enough."""
        number, began = 0, time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            while number < JOBS or not self._enough.is_set():
                pool.submit(self.enqueue, number)
                number += 1
                time.sleep(max(0, began + number / RATE - time.monotonic()))

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Send before, during and after the block."""
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            time.sleep(3)
            yield
        finally:
            self._enough.set()
            thread.join()


class Queue(OwnExample):
    """The example, its workers, and what became of the jobs."""

    def workers(self) -> set[str]:
        pods = get(self.cluster, "pods", selector=f"{self.instance},app.kubernetes.io/component=worker")
        return {pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]}

    def counts(self) -> dict[str, Any]:
        """Jobs by status; rows that they left (`results`), and of how many jobs (`numbers`) and pods (`workers`)."""
        answer = self.ask("GET", "/jobs")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


def drain(admin: Cluster, queue: Queue, nodes: list[str]) -> None:
    """Drain the node without the database."""
    home = get(admin, "pod", f"{queue.name}-postgresql-0")["spec"]["nodeName"]
    [node] = set(nodes) - {home}
    options = ["--ignore-daemonsets", "--delete-emptydir-data", "--timeout=150s", f"--pod-selector={queue.instance}"]
    try:
        admin.kubectl("drain", node, *options)
        admin.kubectl("rollout", "status", f"deployment/{queue.name}-worker", "--timeout=2m")
    finally:
        admin.kubectl("uncordon", node)


def test_each_job_is_done_once(
    kubernetes: LocalCluster,
    admin: Callable[[str], Cluster],
    releaser: Callable[[str], Cluster],
    references: dict[str, str],
) -> None:
    queue = Queue("jobs", releaser("example-jobs"), references["jobs"])
    queue.upgrade()
    clients, first = Clients(queue), queue.workers()
    assert len(first) == 2
    with clients.sending():
        queue.upgrade("--set", "config.STEP=1")
        assert not first & queue.workers()
        if LONG:
            other = queue.image.replace("/jobs:", "/jobs-other:")
            lifecycle.name_image(kubernetes.name, queue.image, other)
            queue.image, before = other, queue.image
            queue.upgrade("--set", "components.worker.replicas=3")
            queue.image = before
            queue.upgrade("--set", "config.STEP=2")
            queue.cluster.helm("rollback", queue.name, "1", *WAIT)
            drain(admin("example-jobs"), queue, kubernetes.nodes)
    assert clients.failures == []
    accepted = len(clients.accepted)
    wait(lambda: set(queue.counts()["jobs"]) <= {"succeeded", "failed"}, 120, f"the end of {accepted} jobs")
    counts = queue.counts()
    print(f"{accepted} jobs accepted, {counts}")
    assert counts["jobs"] == {"succeeded": accepted}
    assert counts["numbers"] == accepted, "jobs were lost"
    assert counts["results"] == accepted, "jobs were done twice"
    assert counts["workers"] >= (10 if LONG else 4)
    queue.remove()
