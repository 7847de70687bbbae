"""Guards, each removed once: the scenario that it guards must turn red, or it shows nothing."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flaskapp_deploy.cluster import lifecycle
from flaskapp_deploy.images import image
from reliability import scenarios
from reliability.outcome import Outcome
from reliability.stage import ROOT, Stage

MEASURES = ("failed ", "errors ", "gap ", "outage ", "slowest ", "acknowledged rows", "rows are there twice")
# A pod that is there before the one that it replaces has drained needs no guard but that.
SLOW = ("--set-json", 'command=["sh", "-c", "sleep 8; exec python -m gunicorn"]')


@dataclass(frozen=True)
class Mutation:
    """A guard that is missing: by values, or by a line of the service's source."""

    name: str
    scenario: str
    settings: tuple[str, ...] = ()
    file: str = ""
    line: str = ""
    instead: str = ""


ALL = (
    Mutation("no drain before the end (preStop)", "image-change", ("--set", "rollout.drainSeconds=0")),
    Mutation(
        "maxUnavailable 2 and no surge",
        "image-change",
        (*SLOW, "--set", "rollout.maxUnavailable=2,rollout.maxSurge=0"),
    ),
    Mutation(
        "no readiness and no startup probe",
        "image-change",
        ("--set", "probes.readiness=null,probes.startup=null"),
    ),
    Mutation("no PodDisruptionBudget", "drain", (*SLOW, "--set", "podDisruptionBudget.enabled=false")),
    Mutation(
        "commits that don't wait for the log",
        "database-killed",
        ("--set", "postgresql.configuration.synchronous_commit=off,postgresql.configuration.wal_writer_delay=10000"),
    ),
    Mutation(
        "no look at a connection before its use (pre-ping)",
        "database-connections-dropped",
        file="src/flaskapp/database.py",
        line='        if readable(record.info["socket"]):\n',
        instead="        if False:\n",
    ),
    Mutation(
        "no watchdog over held connections",
        "database-frozen",
        file="src/flaskapp/database.py",
        line="DEADLINE = 2.0  #",
        instead="DEADLINE = 60.0  #",
    ),
    Mutation(
        "connections that end on the day, whether or not another can be had",
        "password-quickly",
        ("--set-string", "config.DB_CONNECTION_LIFETIME=5"),
        file="src/flaskapp/database.py",
        line="            self._spare_wanted = True\n",
        instead='            raise DisconnectionError("at the end of its lifetime") from None\n',
    ),
    Mutation(
        "readiness that asks the database",
        "database-black-holed",
        # As quick as others have it: ours takes longer than the scenario.
        ("--set", "probes.readiness.periodSeconds=1,probes.readiness.failureThreshold=1"),
        file="src/flaskapp/probes.py",
        line="        ready = self.started and not self.draining and not self.never_ready\n",
        instead="        ready = watch.up and self.started and not self.draining and not self.never_ready\n",
    ),
    Mutation(
        "refusals without Retry-After",
        "database-killed",
        file="src/flaskapp/problems.py",
        line='Try again shortly."\n    return answer(503, detail, [], {"Retry-After": str(RETRY_AFTER)})',
        instead='Try again shortly."\n    return answer(503, detail, [], {})',
    ),
)


def run(stage: Stage, one: Mutation) -> Outcome:
    """Run the scenario without the guard; the outcome is as it should be when it is red by a measure."""
    with without_guard(stage, one):
        stage.baseline()
        outcome = scenarios.run(stage, scenarios.ALL[one.scenario], f"{one.scenario} - {one.name}")
    return outcome


def caught(outcome: Outcome) -> bool:
    """Whether it is red, and by what clients saw."""
    return any(measure in line for line in outcome.red for measure in MEASURES)


@contextmanager
def without_guard(stage: Stage, one: Mutation) -> Iterator[None]:
    before = stage.image, stage.other_image
    stage.settings = list(one.settings)
    if one.file:
        stage.image = _build(stage, one)
        stage.other_image = stage.image
    try:
        yield
    finally:
        stage.image, stage.other_image = before
        stage.settings = []
        stage.baseline()


def _build(stage: Stage, one: Mutation) -> str:
    with tempfile.TemporaryDirectory(prefix="flaskapp-mutated-") as directory:
        context = Path(directory)
        shutil.copy(ROOT / "requirements.lock", context)
        shutil.copytree(ROOT / "src", context / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        source = (context / one.file).read_text()
        assert source.count(one.line) == 1, f"{one.file} has not one line {one.line.strip()!r}"
        (context / one.file).write_text(source.replace(one.line, one.instead))
        built = image.build_image(context, name="flaskapp-mutated")
    lifecycle.load_images(stage.instance.name, {built.reference: built.archive})
    return built.reference
