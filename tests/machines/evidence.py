"""docs/evidence/machines.md: what the last run on each Debian showed, kept in build/reports between runs."""

import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flaskapp_deploy import shell
from tests.machines.machine import Machine

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/evidence/machines.md"
KEPT = ROOT / "build/reports/machines"
HEAD = """\
# The machine suite: what the last run showed

`make test SUITE=machines` boots each Debian in QEMU, as its installer leaves it, and does there what a stranger would.
It writes this page. A machine starts with the programs and images of `make up` in its cache, because an emulated
processor would compile for hours; everything else happens in it.

"""
SKIPPED = "not on this one"


@dataclass
class Run:
    """One Debian's: what it ran on, and each check's outcome and seconds."""

    name: str
    facts: dict[str, str]
    checks: dict[str, str] = field(default_factory=dict)

    def add(self, report: pytest.TestReport, check: str) -> None:
        """Take over what pytest says of a check."""
        if report.skipped:
            self.checks[check] = SKIPPED if "Debian 1" in str(report.longrepr) else "not reached"
        elif report.failed:
            self.checks[check] = f"**failed** after {report.duration:.0f} s"
        elif report.when == "call":
            self.checks[check] = f"{report.duration:.0f} s"


def begin(machine: Machine) -> Run:
    """Ask the machine, and QEMU, for their versions."""
    facts = {
        "run on": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, at {_line('git', 'rev-parse', '--short', 'HEAD')}",
        "kernel": machine.run("uname -r").stdout.strip(),
        "systemd": machine.run("systemctl --version").stdout.split()[1],
        "Python": machine.run("python3 --version").stdout.split()[1],
        "QEMU": _line("qemu-system-x86_64", "--version").split()[3],
        "processor": f"2, {'KVM' if machine.accelerator == 'kvm' else 'emulated (no KVM)'}",
        "memory": f"{machine.debian.memory >> 10} GiB",
        "TIMEOUT_FACTOR": f"{machine.factor:g}",
        "booted in": f"{machine.boot_seconds:.0f} s",
        "set besides": machine.debian.besides,
    }
    return Run(str(machine.debian), facts)


def check_of(nodeid: str) -> tuple[str, str]:
    """Return a test's name as a sentence, and the release that it ran on."""
    name, _, parameters = nodeid.rpartition("::test_")[2].rstrip("]").partition("[")
    release, *others = sorted(parameters.split("-"), key=lambda word: word not in {"bookworm", "trixie"})
    return ": ".join([name.replace("_", " "), *others]), release


def write(runs: dict[str, Run]) -> None:
    """Keep these runs, and write the page of them and of the ones kept before."""
    KEPT.mkdir(parents=True, exist_ok=True)
    for release, run in runs.items():
        shell.write_atomic(KEPT / f"{release}.json", json.dumps(asdict(run), indent=2))
    last = [Run(**json.loads(path.read_text())) for path in sorted(KEPT.glob("*.json"))]
    facts = _table("", last, [run.facts for run in last])
    checks = _table("check", last, [run.checks for run in last])
    shell.write_atomic(PAGE, f"{HEAD}{facts}\n\nSeconds are of the whole check, on the processors above.\n\n{checks}\n")


def _table(corner: str, runs: list[Run], columns: list[dict[str, str]]) -> str:
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = [[corner, *(run.name for run in runs)], ["---"] * (len(runs) + 1)]
    rows += [[name, *(column.get(name, "not reached") for column in columns)] for name in names]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _line(*command: str) -> str:
    return shell.run(*command, cwd=ROOT).stdout.splitlines()[0]
