"""A release whose helm was killed stays `pending-…`: helm refuses every upgrade until somebody rolls it back."""

from pathlib import Path

from flaskapp_deploy.kubernetes import Cluster
from flaskapp_deploy.shell import DeployError, say, wait_until
from flaskapp_deploy.up import doctor

GRACE = 30  # seconds that a helm has which was told to end


def free(cluster: Cluster, release: str) -> None:
    """Roll a pending release back, once no helm of this machine is at work on it.

    Raises:
        DeployError: a helm is at work still, which is somebody else's.
    """
    if not _is_pending(cluster, release):
        return
    try:
        wait_until(lambda: not at_work(release), GRACE, "helm")
    except DeployError:
        raise DeployError(
            f"helm is at work on {release!r} (process {at_work(release)}); wait until it ends, or end it"
        ) from None
    if not _is_pending(cluster, release):  # it ended in an orderly way meanwhile
        return
    revision = doctor.last_good(doctor.history(cluster, release))
    say(f"the helm before was killed in the middle; rolling {release!r} back to revision {revision} first")
    cluster.helm("rollback", release, str(revision))


def _is_pending(cluster: Cluster, release: str) -> bool:
    revisions = doctor.history(cluster, release)
    return bool(revisions) and str(revisions[-1]["status"]).startswith("pending-")


def at_work(release: str) -> int:
    """The process id of a helm that installs, upgrades or rolls back a release of that name; 0 where there is none."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_text(errors="replace").split("\0")
        except OSError:  # it ended
            continue
        if Path(words[0]).name == "helm" and release in words and {"install", "upgrade", "rollback"} & set(words):
            return int(path.parent.name)
    return 0
