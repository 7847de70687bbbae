"""Microseconds of processor time for one request inside a process of its own: no server, client or second thread.

`python -m benchmarks.service.inside PATH` prints a line for each side. The least of many looks is what the code takes;
anything above it is the machine's.
"""

import sys
import time
from importlib import import_module
from typing import Any

from werkzeug.test import create_environ, run_wsgi_app

SIDES = {"raw": "benchmarks.service.raw", "bare Flask": "benchmarks.service.bare", "flaskapp": "flaskapp.wsgi"}
LOOKS, REQUESTS = 25, 300


def cost(application: Any, path: str) -> float:
    environ = create_environ(path)
    began = time.process_time()
    for _ in range(REQUESTS):
        run_wsgi_app(application, dict(environ))
    return 1e6 * (time.process_time() - began) / REQUESTS


def main() -> None:
    for name, module in SIDES.items():
        application = import_module(module).app
        cost(application, sys.argv[1])  # warm
        print(f"{name:<20}{min(cost(application, sys.argv[1]) for _ in range(LOOKS)):>8.0f}", flush=True)


if __name__ == "__main__":
    main()
