"""docs/tour.md, and the service's part of docs/local.md: every block runs unchanged, in one shell, on `make run`."""

import signal
import threading

import pytest

from tests import pages
from tests.service.test_run import curl_lines, environment, run

__all__ = ["environment"]


@pytest.mark.parametrize(("page", "heading", "count"), [("tour.md", "", 8), ("local.md", "The service", 1)])
def test_every_command(environment: dict[str, str], page: str, heading: str, count: int) -> None:
    blocks = [block for block in pages.blocks(page, heading) if block != "make run\n"]
    assert len(blocks) == count
    process = run(environment)
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    try:
        assert list(curl_lines(process))
        pages.run("\n".join(blocks), env=environment, timeout=50)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        watchdog.cancel()
