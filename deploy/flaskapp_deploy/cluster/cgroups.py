"""A control group for each node, in every controller (cgroup v1) or delegated from the root (cgroup v2).

Version 1 is what the tests run on; the branch for version 2 has not run in them yet.
"""

import time
from contextlib import suppress
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


def is_v2() -> bool:
    """Return whether this machine has version 2."""
    return (ROOT / "cgroup.controllers").exists()


def ensure(name: str) -> None:
    """Make a group in every controller, unless it exists."""
    for parent in _hierarchies():
        group = parent / name
        group.mkdir(exist_ok=True)
        if is_v2():
            controllers = (parent / "cgroup.controllers").read_text().split()
            for directory in (parent, group):
                (directory / "cgroup.subtree_control").write_text(" ".join(f"+{c}" for c in controllers))
        elif (group / "cpuset.cpus").exists():
            # A new cpuset is empty, and nothing can run in it until it has processors and memory nodes.
            for mask in ("cpuset.cpus", "cpuset.mems"):
                (group / mask).write_text((parent / mask).read_text())


def remove(name: str, seconds: float = 10) -> None:
    """Remove a group and those below it. Their processes have ended; the kernel may need a moment to agree."""
    deadline = time.monotonic() + seconds
    while groups := [parent / name for parent in _hierarchies() if (parent / name).exists()]:
        for group in groups:
            for directory in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
                with suppress(OSError):
                    directory.rmdir()
            try:
                group.rmdir()
            except OSError:
                if time.monotonic() > deadline:
                    raise
        time.sleep(0.1)


def _hierarchies() -> list[Path]:
    """Return where groups are made: the root, or under version 1 the root of each controller."""
    if is_v2():
        return [ROOT]
    return sorted({path.resolve() for path in ROOT.iterdir() if (path / "cgroup.procs").exists()})
