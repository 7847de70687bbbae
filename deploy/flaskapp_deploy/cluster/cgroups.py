"""A control group for each node, in every controller (cgroup v1) or delegated from the root (cgroup v2)."""

from contextlib import suppress
from pathlib import Path

from flaskapp_deploy.shell import wait_until

ROOT = Path("/sys/fs/cgroup")
IS_V2 = (ROOT / "cgroup.controllers").exists()


def ensure(name: str) -> None:
    """Make a group in every controller, unless it exists."""
    for parent in _hierarchies():
        group = parent / name
        group.mkdir(exist_ok=True)
        if IS_V2:
            controllers = (parent / "cgroup.controllers").read_text().split()
            for directory in (parent, group):
                (directory / "cgroup.subtree_control").write_text(" ".join(f"+{c}" for c in controllers))
        elif (group / "cpuset.cpus").exists():
            # A new cpuset is empty, and nothing can run in it until it has processors and memory nodes.
            for mask in ("cpuset.cpus", "cpuset.mems"):
                (group / mask).write_text((parent / mask).read_text())


def remove(name: str) -> None:
    """Remove a group and those below it. Their processes have ended; the kernel may need a moment to agree."""
    groups = [parent / name for parent in _hierarchies()]

    def gone() -> bool:
        for directory in sorted((one for group in groups for one in group.glob("**/")), reverse=True):
            with suppress(OSError):
                directory.rmdir()
        return not any(group.exists() for group in groups)

    wait_until(gone, 10, f"the removal of the control group {name}")


def _hierarchies() -> list[Path]:
    """Return where groups are made: the root, or under version 1 the root of each controller."""
    if IS_V2:
        return [ROOT]
    return sorted({path.resolve() for path in ROOT.iterdir() if (path / "cgroup.procs").exists()})
