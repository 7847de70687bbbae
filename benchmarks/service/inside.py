"""CPU time of one request in µs, in a process of its own: no server, client or second thread.

`python -m benchmarks.service.inside PATH` prints a line for each side. The least of many samples is what the code
takes; anything above it is noise of the machine.
"""

import sys
import time
from importlib import import_module
from typing import Any

from werkzeug.test import create_environ, run_wsgi_app

SIDES = {"raw": "benchmarks.service.raw", "bare Flask": "benchmarks.service.bare", "flaskapp": "flaskapp.wsgi"}
SAMPLES, REQUESTS = 25, 300


def cost(application: Any, path: str) -> float:
    """Return the CPU time of a request in µs, the mean of REQUESTS."""
    environ = create_environ(path)
    began = time.process_time()
    for _ in range(REQUESTS):
        run_wsgi_app(application, dict(environ))
    return 1e6 * (time.process_time() - began) / REQUESTS


def main() -> None:
    """Print a line for each side."""
    for name, module in SIDES.items():
        application = import_module(module).app
        cost(application, sys.argv[1])  # warm
        print(f"{name:<20}{min(cost(application, sys.argv[1]) for _ in range(SAMPLES)):>8.0f}", flush=True)


if __name__ == "__main__":
    main()
