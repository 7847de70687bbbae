"""docs/tour.md: every block runs as it stands there, in one shell, against `make run`."""

import re
import signal
import subprocess
import threading
from pathlib import Path

from tests.service.test_run import ROOT, curl_lines, environment, run

__all__ = ["environment"]


def test_every_command_of_the_tour(environment: dict[str, str], tmp_path: Path) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "docs" / "tour.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 8
    process = run(environment)
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    try:
        assert list(curl_lines(process))
        script = tmp_path / "tour.sh"
        script.write_text("set -euxo pipefail\n" + "\n".join(blocks))
        told = subprocess.run(["bash", script], env=environment, capture_output=True, text=True, timeout=50)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        watchdog.cancel()
    assert told.returncode == 0, told.stdout + told.stderr
