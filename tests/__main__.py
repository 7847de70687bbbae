"""`make test`, or `python -m tests SUITE…`: run suites, the quick ones first, up to three at a time.

After a failure no further suite begins, unless KEEP_GOING=1 is set. Their output goes to build/logs; the runners'
closing lines, and the last lines of a failure, to standard output.
"""

import argparse
import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path

from flaskapp_deploy import programs
from flaskapp_deploy.programs import packages
from flaskapp_deploy.shell import DeployError
from tests.lanes import Lanes

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / "build/logs"
PYTEST = [sys.executable, "-m", "pytest", "--durations=5"]
SHELL = [
    "deploy/venv.sh",
    "deploy/python",
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
LONG = [  # longer with LONG=1
    "tests/deploy/up/test_doctor.py",
    "tests/reliability/test_scenarios.py",
    "tests/examples/test_jobs.py",
    "tests/examples/test_migrations.py",
    "tests/examples/test_streams.py",
]
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
# Each suite has a cluster of its own, called `test-release` and so on.
INSTANCE = os.environ.get("INSTANCE", "test")
QUICK = {"lint", "infra", "programs", "docs"}
# More than there are cores: most suites wait for pods, timeouts and probes half of their time.
LANES = 3
# What may not run beside a suite. `cluster` counts mounts, links and processes on the machine, before and after.
APART = {
    "cluster": {"pipeline", "release", "examples"},
    **{long: set(SUITES) for long in ("release-long", "machines")},
}
# Suites that measure time, or have limits of some seconds, go before the others on the cores.
TIMED = {"release", "release-long", "service"}
BEHIND = ["nice", "-n", "10"]
NEEDS_CHART_TOOLS = {"lint", "chart", "pipeline", "release", "release-long", "examples", "docs"}
# Further groups of programs that suites call, built one after another before they begin: their tests have time limits.
ON_CLUSTER = ["kubernetes", "images"]
PROGRAMS = {
    "images": ["images"],
    "chart": ["helm3", "policy"],
    "pipeline": [*ON_CLUSTER, "pipeline", "registry"],
    "cluster": ON_CLUSTER,
    "release": [*ON_CLUSTER, "release"],
    "release-long": [*ON_CLUSTER, "release"],
    "examples": [*ON_CLUSTER, "helm3", "enforcer"],
}
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
    for end in (signal.SIGINT, signal.SIGTERM):  # a background job of a shell ignores SIGINT
        signal.signal(end, signal.default_int_handler)
    # A make that a test runs must not count as a child of this one, or it prints the folder that it enters.
    for name in ("MAKELEVEL", "MAKEFLAGS", "MFLAGS"):
        os.environ.pop(name, None)
    LOGS.mkdir(parents=True, exist_ok=True)
    try:
        results = run_all(chosen)
    except DeployError as error:
        print(f"tests: {error}")
        return 1
    except KeyboardInterrupt:  # the running suites received it too, and have cleaned up
        print("tests: interrupted")
        return 130
    print("\nsuite         seconds")
    for name, (state, seconds) in results.items():
        print(f"{name:14}{seconds:7.0f}  {state}")
    if "not run" in {state for state, _ in results.values()}:
        print("after a failure no suite begins; with KEEP_GOING=1 all do")
    return 0 if {state for state, _ in results.values()} == {"passed"} else 1


def run_all(chosen: list[str]) -> dict[str, tuple[str, float]]:
    """Run suites, all of the quick ones before any other; return for each how it ended, and its seconds."""
    lanes = Lanes(LANES, APART, keep_going=bool(os.environ.get("KEEP_GOING")))
    results = dict.fromkeys(chosen, ("not run", 0.0))
    timed = TIMED & set(chosen)

    def run_one(name: str) -> bool:
        passed, seconds = run(lanes, name, BEHIND if timed and name not in timed else [])
        results[name] = ("passed" if passed else "FAILED", seconds)
        return passed

    for quick in (True, False):
        names = [name for name in chosen if (name in QUICK) == quick]
        if names and (lanes.keep_going or not lanes.failed):
            prepare(set(names))
            lanes.run(names, run_one)
    return results


def prepare(chosen: set[str]) -> None:
    """Install the programs that the suites call, before their time is measured."""
    for suite, program in FROM_DEBIAN.items():
        if suite in chosen and shutil.which("apt-get"):
            packages.ensure({program: program})
    path = [str(Path(sys.executable).parent)]
    if chosen & NEEDS_CHART_TOOLS:
        path.append(str(programs.binaries("chart")))
    for group in dict.fromkeys(group for suite in sorted(chosen) for group in PROGRAMS.get(suite, ())):
        programs.binaries(group)
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


def run(lanes: Lanes, name: str, prefix: list[str]) -> tuple[bool, float]:
    """Run one suite to its end, or to its first failing command; return whether all passed, and the seconds."""
    started = time.monotonic()
    print(f"{name}: running", flush=True)
    environment = os.environ | {"INSTANCE": f"{INSTANCE}-{name}"}
    passed, lines = True, []
    with (LOGS / f"{name}.log").open("w+") as log:
        for command in commands(name):
            print(f"$ {' '.join(command)}", file=log, flush=True)
            code = lanes.call([*prefix, *command], cwd=ROOT, env=environment, stdout=log, stderr=log)
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
