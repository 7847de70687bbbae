"""`python -m tests` itself: what runs when, what a failure stops, and what an interrupt ends.

Its suites are replaced by lines of shell, which note their begin and their end.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.kubernetes import ROOT

RUNNER = """
import json, sys
from pathlib import Path
from tests import __main__ as runner

runner.LOGS = folder = Path(sys.argv.pop(1))
runner.SUITES.clear()
for name, script in json.loads(sys.argv.pop(1)).items():
    lines = [f"echo begin {name} >> {folder}/notes", script, f"echo end {name} >> {folder}/notes"]
    runner.SUITES[name] = [["sh", "-c", "; ".join(lines)]]
runner.FROM_DEBIAN.clear()
runner.prepare = lambda chosen: None
sys.exit(runner.main())
"""
STUBBORN = """
trap 'echo interrupted >> {notes}; sleep 0.3; echo clean >> {notes}; exit 1' INT
while :; do sleep 0.1; done
"""


def command(folder: Path, scripts: dict[str, str]) -> list[str]:
    return [sys.executable, "-c", RUNNER, str(folder), json.dumps(scripts), *scripts]


def run(folder: Path, scripts: dict[str, str], **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"KEEP_GOING": ""} | variables
    line = command(folder, scripts)
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


def notes(folder: Path) -> list[str]:
    return (folder / "notes").read_text().splitlines()


def wait_for(path: Path, text: str) -> str:
    return f"until grep -qs '{text}' {path}/notes; do sleep 0.05; done"


def test_quick_suites_end_before_the_others_begin(tmp_path: Path) -> None:
    result = run(tmp_path, {"service": "true", "lint": "sleep 0.3", "docs": "true"})
    assert result.returncode == 0, result.stdout + result.stderr
    assert notes(tmp_path)[-2:] == ["begin service", "end service"]
    assert result.stdout.count("  passed") == 3


def test_suites_run_side_by_side(tmp_path: Path) -> None:
    """Each waits for the other's begin."""
    one, two = wait_for(tmp_path, "begin images"), wait_for(tmp_path, "begin service")
    assert run(tmp_path, {"service": one, "images": two}).returncode == 0


def test_what_counts_mounts_runs_without_what_makes_them(tmp_path: Path) -> None:
    scripts = {"release": "sleep 0.3", "cluster": "sleep 0.3", "pipeline": "sleep 0.3", "chart": "sleep 0.3"}
    assert run(tmp_path, scripts).returncode == 0
    lines = notes(tmp_path)
    [begin, end] = [lines.index(f"{what} cluster") for what in ("begin", "end")]
    for name in ("release", "pipeline"):
        assert lines.index(f"end {name}") < begin or end < lines.index(f"begin {name}"), lines
    assert lines.index("begin chart") < lines.index("end release"), lines


@pytest.mark.parametrize(("keep_going", "begun"), [("", {"lint", "docs"}), ("1", {"lint", "docs", "release"})])
def test_a_failure_stops_what_has_not_begun(tmp_path: Path, keep_going: str, begun: set[str]) -> None:
    fails = f"{wait_for(tmp_path, 'begin docs')}; echo the reason; exit 3"
    result = run(tmp_path, {"lint": fails, "docs": "true", "release": "true"}, KEEP_GOING=keep_going)
    assert result.returncode == 1
    assert {line.split()[1] for line in notes(tmp_path)} == begun
    assert "lint: `sh -c " in result.stdout
    assert "ended with 3" in result.stdout
    assert "the reason" in result.stdout
    assert ("not run" in result.stdout) == (not keep_going)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_reaches_every_suite_once_and_is_waited_for(tmp_path: Path, end: signal.Signals) -> None:
    stubborn = STUBBORN.format(notes=tmp_path / "notes")
    scripts = dict.fromkeys(("service", "chart", "images"), stubborn) | {"examples": "true"}
    environment = os.environ | {"KEEP_GOING": "1"}
    line = command(tmp_path, scripts)
    process = subprocess.Popen(line, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not (tmp_path / "notes").exists() or len(notes(tmp_path)) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(end)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert output.endswith("tests: interrupted\n")
    assert "examples: running" not in output
    assert sorted(notes(tmp_path)[3:]) == 3 * ["clean"] + 3 * ["interrupted"]


def test_only_what_measures_time_goes_first_on_the_cores(tmp_path: Path) -> None:
    scripts = dict.fromkeys(("release", "service", "chart"), f"echo $(nice) $INSTANCE >> {tmp_path}/levels")
    assert run(tmp_path, scripts, INSTANCE="t").returncode == 0
    mine = os.getpriority(os.PRIO_PROCESS, 0)
    levels = set((tmp_path / "levels").read_text().splitlines())
    assert levels == {f"{mine} t-release", f"{mine} t-service", f"{min(19, mine + 10)} t-chart"}
