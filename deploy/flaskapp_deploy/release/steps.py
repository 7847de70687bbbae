"""The release, from a commit to its record: the order of the steps, for CodeBuild, other CI and people alike."""

import signal
import time
from collections.abc import Callable
from functools import partial

from flaskapp_deploy.kubernetes import Cluster
from flaskapp_deploy.release import build, check, package, push, record, release, scan, verify, version
from flaskapp_deploy.release.config import ReleaseConfig
from flaskapp_deploy.shell import DeployError, say

Step = tuple[str, Callable[[], None]]


def steps(config: ReleaseConfig, cluster: Cluster, to_push: bool = True) -> list[Step]:
    """Return the steps in their order, each with its name on the command line; without a push, those before it."""
    before: list[Step] = [
        ("version", partial(version.begin, config)),
        ("check", partial(check.run, config)),
        ("build", partial(build.build, config, to_push)),
        ("scan", scan.scan),
    ]
    after: list[Step] = [
        ("push", push.push),
        ("scan --pushed", scan.scan_pushed),
        ("package", partial(package.package, config)),
        ("verify", verify.verify),
        ("release", partial(release.release, config, cluster)),
    ]
    return [*before, *after] if to_push else before


def run(config: ReleaseConfig, to_push: bool = True) -> None:
    """Run all steps; what was released, or failed to be, is recorded whatever happens. The error names the step."""
    # A build that is stopped gets SIGTERM, and is recorded, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    cluster = Cluster(None, "", config.namespace)
    first, *others = steps(config, cluster, to_push)
    _run(first)  # until then release.json is of the release before
    if to_push:
        _run(("preflight", partial(preflight, config, cluster)))
    try:
        for step in others:
            _run(step)
    finally:
        if to_push:
            _run(("record", partial(record.record, config, cluster)))


def run_one(name: str, config: ReleaseConfig, to_push: bool = True) -> None:
    """Run the step of that name by itself."""
    cluster = Cluster(None, "", config.namespace)
    others: list[Step] = [("record", partial(record.record, config, cluster))]
    dict([*steps(config, cluster, to_push), *others])[name]()


def preflight(config: ReleaseConfig, cluster: Cluster) -> None:
    """Fail now where a step would fail in minutes: settings, the login to the registry, rights in the cluster."""
    package.preflight(config)
    release.preflight(cluster)


def _run(step: Step) -> None:
    name, work = step
    say(f"step {name} begins")
    started = time.monotonic()
    try:
        work()
    except DeployError as error:
        raise DeployError(f"step {name} failed: {error.message}") from error
    say(f"step {name} took {time.monotonic() - started:.0f} s")
