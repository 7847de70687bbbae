"""`make test`, or `python -m tests SUITE…`: run suites one after another (lint, service, chart in parallel).

Their output goes to build/logs; the runners' closing lines, and the last lines of a failure, to standard output.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from flaskapp_deploy import programs
from flaskapp_deploy.programs import packages
from flaskapp_deploy.shell import DeployError

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / "build/logs"
PYTEST = [sys.executable, "-m", "pytest", "--durations=5"]
SHELL = [
    "deploy/venv.sh",
    "deploy/flaskapp-deploy",
    "deploy/flaskapp_deploy/cluster/node-init.sh",
    ".ci/run",
    *map(str, Path("charts").glob("*.sh")),
    *map(str, Path("tests/machines").glob("*.sh")),
    *map(str, Path("charts").glob("*/files/*.sh")),
]
COVERAGE = ["--cov", "--cov-report=term", "--cov-report=xml:build/reports/coverage.xml"]
ON_A_CLUSTER = ["tests/deploy/up/test_up.py", "tests/deploy/up/test_doctor.py"]
UP = ["tests/deploy/up", *(f"--ignore={path}" for path in ON_A_CLUSTER)]
LONG = ["tests/deploy/up/test_doctor.py", "tests/reliability/test_scenarios.py"]  # longer with LONG=1
SUITES: dict[str, list[list[str]]] = {
    "lint": [
        ["ruff", "check"],
        ["ruff", "format", "--check"],
        ["mypy"],
        ["lint-imports", "--no-cache"],
        ["codespell"],
        ["shellcheck", *SHELL],
        [*PYTEST, "--setup-plan", "--quiet", "tests"],  # every test is collected, and every fixture exists
        [*PYTEST, "tests/lint"],
    ],
    "programs": [[*PYTEST, "tests/deploy/programs", *map(str, Path("tests/deploy").glob("test_*.py"))]],
    "service": [[*PYTEST, "tests/service", *COVERAGE]],
    "images": [[*PYTEST, "tests/deploy/images"]],
    "chart": [
        ["helm", "dependency", "build", "--skip-refresh", "charts/flaskapp"],
        ["helm-unittest", "--strict", "charts/flaskapp", "charts/postgresql"],
        [*PYTEST, "tests/chart"],
    ],
    "pipeline": [[*PYTEST, *UP, "tests/deploy/release", "tests/deploy/rehearsal"]],
    "infra": [[*PYTEST, "tests/infra"]],
    "cluster": [[*PYTEST, "tests/deploy/cluster"]],
    "release": [[*PYTEST, "tests/reliability", *ON_A_CLUSTER]],
    "release-long": [["env", "LONG=1", *PYTEST, "--capture=no", *LONG]],
    "examples": [[*PYTEST, "tests/examples"]],
    "docs": [[*PYTEST, "tests/docs"]],
    "machines": [[*PYTEST, "tests/machines"]],  # two virtual machines, each for the better part of an hour if emulated
}
# Programs that come as Debian packages. Amazon Linux, where releases are built, has neither.
FROM_DEBIAN = {"lint": "shellcheck", "service": "chromium", "docs": "shellcheck"}
WITHOUT_BROWSER = ["--ignore=tests/service/test_pages.py"]
PARALLEL = {"lint", "service", "chart"}
NEEDS_CHART_TOOLS = {"lint", "chart", "pipeline", "release", "release-long", "examples", "docs"}
# The last lines of each runner: pytest, helm-unittest, ruff, mypy; and the scenarios' table.
CLOSING = re.compile(
    r"^=+ .*(passed|failed|error).* =+$|^(Tests|Test Suites|Charts): .*|^Found \d+ error|^Success: |^TOTAL |^\| "
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests", description="Run test suites.")
    parser.add_argument("suite", nargs="+", help=", ".join(SUITES))
    chosen = parser.parse_args().suite
    if unknown := [name for name in chosen if name not in SUITES]:
        parser.error(f"there is no suite {unknown[0]!r}; the suites are {', '.join(SUITES)}")
    # A background job of a shell ignores SIGINT, and so would every server that a test stops by it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # A make that a test runs must not count as a child of this one, or it prints the folder that it enters.
    for name in ("MAKELEVEL", "MAKEFLAGS", "MFLAGS"):
        os.environ.pop(name, None)
    LOGS.mkdir(parents=True, exist_ok=True)
    try:
        prepare(set(chosen))
        with ThreadPoolExecutor(2 if set(chosen) <= PARALLEL else 1) as pool:
            results = dict(zip(chosen, pool.map(run, chosen), strict=True))
    except DeployError as error:
        print(f"tests: {error}")
        return 1
    except KeyboardInterrupt:  # the running suite received it too, and has cleaned up
        print("tests: interrupted")
        return 130
    print("\nsuite         seconds")
    for name, (passed, seconds) in results.items():
        print(f"{name:14}{seconds:7.0f}  {'passed' if passed else 'FAILED'}")
    return 0 if all(passed for passed, _ in results.values()) else 1


def prepare(chosen: set[str]) -> None:
    """Install the programs that the suites call, before their time is measured."""
    for suite, program in FROM_DEBIAN.items():
        if suite in chosen and shutil.which("apt-get"):
            packages.ensure({program: program})
    path = [str(Path(sys.executable).parent)]
    if chosen & NEEDS_CHART_TOOLS:
        path.append(str(programs.binaries("chart")))
    if "docs" in chosen:  # calls `kubectl --help`
        path.append(str(programs.binaries("kubernetes")))
    os.environ["PATH"] = ":".join([*path, os.environ["PATH"]])
    os.environ["PYTHONPATH"] = f"{ROOT / 'src'}:{ROOT / 'deploy'}:{ROOT}"


def commands(name: str) -> list[list[str]]:
    """Return a suite's commands on this machine, each pytest with a JUnit report."""
    lines = SUITES[name]
    program = FROM_DEBIAN.get(name)
    if program and shutil.which(program) is None:
        print(f"{name}: no {program} here, and no apt-get to bring it: what needs it is left out", flush=True)
        lines = [[*line, *WITHOUT_BROWSER] if "tests/service" in line else line for line in lines if line[0] != program]
    report = f"--junitxml=build/reports/{name}.junit.xml"
    return [[*line, report] if line[: len(PYTEST)] == PYTEST else line for line in lines]


def run(name: str) -> tuple[bool, float]:
    """Run one suite to its end, or to its first failing command; return whether all passed, and the seconds."""
    started = time.monotonic()
    print(f"{name}: running", flush=True)
    passed, lines = True, []
    with (LOGS / f"{name}.log").open("w+") as log:
        for command in commands(name):
            print(f"$ {' '.join(command)}", file=log, flush=True)
            code = subprocess.run(command, cwd=ROOT, stdout=log, stderr=log, stdin=subprocess.DEVNULL).returncode
            if code:
                passed = False
                lines.append(f"{name}: `{' '.join(command[:3])} …` ended with {code}; last lines of {log.name}:")
                break
        log.seek(0)
        written = log.read().splitlines()
    lines = [line for line in written if CLOSING.match(line)] + (lines + written[-60:] if not passed else [])
    print("\n".join(f"{name}: {line}" if passed else line for line in lines), flush=True)
    return passed, time.monotonic() - started


if __name__ == "__main__":
    sys.exit(main())
