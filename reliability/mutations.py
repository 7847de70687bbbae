"""Guards, each removed once: the scenario that it guards must turn red, or it shows nothing."""

from dataclasses import dataclass
from pathlib import Path

from reliability import scenario, scenarios
from reliability.environment import Environment
from reliability.outcome import Outcome

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

    def change(self, context: Path) -> None:
        """Replace the line in a copy of the source."""
        source = (context / self.file).read_text()
        assert source.count(self.line) == 1, f"{self.file} has not one line {self.line.strip()!r}"
        (context / self.file).write_text(source.replace(self.line, self.instead))


ALL = (
    Mutation("no drain before the end (preStop)", "image-change", ("--set", "rollout.drainSeconds=0")),
    Mutation(
        "maxUnavailable 2 and no surge", "image-change", (*SLOW, "--set", "rollout.maxUnavailable=2,rollout.maxSurge=0")
    ),
    Mutation(
        "no readiness and no startup probe", "image-change", ("--set", "probes.readiness=null,probes.startup=null")
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


def run(env: Environment, mutation: Mutation) -> Outcome:
    """Run the scenario with upgrades that lack the guard; the outcome is as it should be when a measure is red."""
    before = env.image, env.other_image
    env.settings = mutation.settings
    if mutation.file:
        env.image = env.other_image = env.build("flaskapp-mutated", mutation.change)
    try:
        env.baseline()
        return scenario.run(env, scenarios.ALL[mutation.scenario], f"{mutation.scenario} - {mutation.name}")
    finally:
        env.image, env.other_image = before
        env.settings = ()
        env.baseline()


def caught(outcome: Outcome) -> bool:
    """Return whether it is red, and by what clients saw."""
    return any(measure in line for line in outcome.red for measure in MEASURES)
