"""examples/streams: an application that is only busy is not ended, and no stream is cut.

One pod on the defaults: gunicorn's one worker with the four threads of the image build, and the chart's own probes. The
streams take all four threads. With LONG=1 for two minutes, otherwise for 50 seconds: where liveness asks every 10
seconds and gives up after three, such a pod ends after 35.
"""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest
import requests

from flaskapp_deploy.kubernetes import Cluster
from tests.examples.own import OwnExample
from tests.reliability.test_release import get

LONG = bool(os.environ.get("LONG"))
SECONDS = 120 if LONG else 50
STREAMS, CLIENTS = 4, 5
T = TypeVar("T")


class Streams(OwnExample):
    """The example in one pod."""

    def listen(self, seconds: int, begun: threading.Barrier | None = None) -> int:
        """Read a stream of so many seconds to its end; return the number of its events."""
        address = f"{self.url}/events?seconds={seconds}"
        with requests.get(address, stream=True, timeout=seconds + 60) as answer:
            answer.raise_for_status()
            if begun:
                begun.wait(60)
            return sum(line.startswith(b"id: ") for line in answer.iter_lines())

    def ask_slowly(self, ended: threading.Event) -> list[int]:
        """Ask for what takes 20 seconds, again and again; return the answers' codes."""
        codes = []
        while not ended.is_set():
            codes.append(requests.get(f"{self.url}/slow", timeout=SECONDS + 90).status_code)
        return codes

    def restarts(self) -> dict[str, int]:
        pods = get(self.cluster, "pods", selector=self.labels)
        return {pod["metadata"]["name"]: pod["status"]["containerStatuses"][0]["restartCount"] for pod in pods}

    def failed_probes(self) -> list[str]:
        """What the kubelet wrote about the pod that serves now, once it had started."""
        [pod] = self.restarts()
        events = [one for one in get(self.cluster, "events") if one["involvedObject"]["name"] == pod]
        messages = [one["message"] for one in events if one["reason"] == "Unhealthy"]
        return [message for message in messages if not message.startswith("Startup")]


@pytest.fixture(scope="module")
def streams(releaser: Callable[[str], Cluster], references: dict[str, str]) -> Iterator[Streams]:
    example = Streams("streams", releaser("example-streams"), references["streams"])
    example.upgrade("--set", "replicas=1")
    yield example
    example.remove()


def listen_and_ask(streams: Streams, look: Callable[[], T]) -> tuple[list[int], T, list[int]]:
    """Keep streams and clients for SECONDS; return the events, what `look` sees then, and the codes of the clients."""
    ended, begun = threading.Event(), threading.Barrier(STREAMS + 1)
    with ThreadPoolExecutor(STREAMS + CLIENTS) as pool:
        listeners = [pool.submit(streams.listen, SECONDS, begun) for _ in range(STREAMS)]
        begun.wait(60)  # each has its thread
        clients = [pool.submit(streams.ask_slowly, ended) for _ in range(CLIENTS)]
        try:
            events = [one.result() for one in listeners]
        finally:
            ended.set()
        seen = look()
        return events, seen, [code for client in clients for code in client.result()]


@pytest.mark.parametrize(("probes", "path"), [("http", "/health"), *([("tcp", "")] if LONG else [])])
def test_a_busy_pod_lives_and_its_streams_are_whole(streams: Streams, probes: str, path: str) -> None:
    streams.change(f"replicas=1,config.PROBES={probes},health.path={path}")
    [before] = streams.restarts()
    events, restarts, codes = listen_and_ask(streams, streams.restarts)
    print(f"{SECONDS} s on the defaults, {probes} probes: events {events}, restarts {restarts}, slow {codes}")
    assert events == STREAMS * [SECONDS]
    assert restarts == streams.restarts() == {before: 0}
    assert codes == CLIENTS * [200], "each waited for a thread"


@pytest.mark.skipif(not LONG, reason="with LONG=1")
def test_with_a_thread_for_each_nobody_waits(streams: Streams) -> None:
    """docs/streaming.md."""
    streams.change("replicas=1,threads=32")
    events, unready, codes = listen_and_ask(streams, streams.failed_probes)
    print(f"{SECONDS} s with 32 threads: events {events}, slow {codes}")
    assert events == STREAMS * [SECONDS]
    assert set(codes) == {200}
    assert len(codes) >= CLIENTS * (SECONDS // 20)
    assert unready == []


def test_a_stream_outlives_a_rollout_within_the_grace(streams: Streams) -> None:
    """It has drainSeconds + gracefulSeconds from the moment that its pod must go: 35 seconds."""
    with ThreadPoolExecutor(STREAMS) as pool:
        listeners = [pool.submit(streams.listen, 35) for _ in range(STREAMS)]
        streams.change("replicas=1,config.STEP=1")
        assert [one.result() for one in listeners] == STREAMS * [35]
