"""Where scenarios run: the release, faults that are injected, and what one scenario notes and undoes."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from flaskapp_deploy import shell
from flaskapp_deploy.cluster import lifecycle, network, node
from flaskapp_deploy.cluster.localcluster import LocalCluster
from flaskapp_deploy.shell import say
from reliability.load import Answer, Load
from reliability.outcome import Outcome
from reliability.release import RELEASE, Release, conditions, until


class Environment(Release):
    """The release, and one scenario's course: moments, notes, checks and what is undone at its end."""

    outcome: Outcome
    load: Load

    def __init__(self, cluster: LocalCluster) -> None:
        super().__init__(cluster)
        self._undo: list[tuple[str, Callable[[], object]]] = []

    def begin(self, outcome: Outcome) -> None:
        """Begin a scenario whose figures go to `outcome`."""
        self.outcome = outcome
        self.answers: list[Answer] = []
        self.marks: list[tuple[float, str]] = []
        self.comparisons: list[Callable[[], None]] = []  # of the answers, once they are all there

    def mark(self, what: str) -> None:
        """Show this moment in the plot."""
        self.marks.append((time.time(), what))

    def note(self, what: str) -> None:
        """Print it beside the figures."""
        self.outcome.notes.append(what)

    def check(self, holds: bool, what: str) -> None:
        """Turn the scenario red unless it holds."""
        if not holds:
            self.outcome.red.append(what)

    def check_image(self, reference: str) -> None:
        """Turn the scenario red unless the ready pods run this image."""
        images = {pod["spec"]["containers"][0]["image"] for pod in self.ready_pods()}
        self.check(images == {reference}, f"pods run {images}, not {reference}")

    def check_deployed(self) -> None:
        """Turn the scenario red unless helm reports the release as deployed."""
        status = self.releaser.helm("status", RELEASE).stdout
        self.check("STATUS: deployed" in status, f"the release is not deployed: {status[:200]}")

    def later(self, what: str, undo: Callable[[], object]) -> None:
        """Undo something at the scenario's end, whatever happens; `what` is reported where that fails."""
        self._undo.append((what, undo))

    def clean(self) -> None:
        """Undo what was done, the last first; what is left behind turns the scenario red."""
        while self._undo:
            what, undo = self._undo.pop()
            try:
                undo()
            except Exception as error:
                self.outcome.red.append(f"left behind: {what} ({error})")
                say(self.outcome.red[-1])  # an interrupted run has no other place to report it

    # --- faults ------------------------------------------------------------------------------------------------------

    def processes(self, pod: dict[str, Any], container: str) -> list[int]:
        """Return the ids on this machine of a container's processes, its first one first."""
        [status] = [one for one in pod["status"]["containerStatuses"] if one["name"] == container]
        identifier = status["containerID"].rpartition("/")[2]
        pids = []
        for directory in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if identifier in (directory / "cgroup").read_text():
                    pids.append(int(directory.name))
        return sorted(pids)

    def kill(self, pod: dict[str, Any], container: str, what: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to every process of a container, its first one first."""
        for pid in self.processes(pod, container):
            with suppress(ProcessLookupError):
                os.kill(pid, what)

    def enter_network(self, pod: dict[str, Any], container: str) -> list[str]:
        """Return the beginning of a command that runs a program of this machine in the pod's network."""
        return ["nsenter", f"--target={self.processes(pod, container)[0]}", "--net"]

    def run_on_node(self, node_name: str, *command: str) -> str:
        """Run a program of this machine among a node's mounts; return what it printed."""
        return shell.run(*node.enter(self.cluster, node_name, *command)).stdout

    @contextmanager
    def node_killed(self, node_name: str) -> Iterator[None]:
        """Kill a node by kill -9, and start it again at the end."""
        self.mark(f"kill {node_name}")
        try:
            lifecycle.stop_node(self.cluster.name, node_name)
            yield
        finally:
            self.mark("start")
            lifecycle.up(self.cluster.name)
            self._wait_for_nodes()

    @contextmanager
    def node_partitioned(self, node_name: str) -> Iterator[None]:
        """Take a node off the network, and put it back at the end."""
        link, fabric = f"to-{node_name}", self.cluster.namespace("fabric")
        self.mark(f"cut {node_name}")
        try:
            network.ip("link", "set", link, "down", namespace=fabric)
            yield
        finally:
            self.mark("join")
            network.ip("link", "set", link, "up", namespace=fabric)
            self._wait_for_nodes()

    def _wait_for_nodes(self) -> None:
        until(lambda: all("Ready" in conditions(one) for one in self.get("nodes")), 120, "a node")
