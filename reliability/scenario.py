"""What a scenario is, and its course: from a release that is well to one that is well again."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from flaskapp_deploy.shell import DeployError
from reliability.environment import Environment
from reliability.load import Load
from reliability.outcome import Bound, Outcome, plot
from reliability.release import BUILD, answers, until

Step = Callable[[Environment], object]


@dataclass(frozen=True)
class Scenario:
    """What happens, and what clients may see of it at most."""

    step: Step
    bound: Bound = Bound()  # noqa: RUF009 - it is frozen
    short: bool = False  # part of the short form, which runs it once
    times: int = 1  # in the long form
    without_node: Callable[[Environment], str] | None = None  # clients don't enter by this one
    load: bool = True
    prepare: Step | None = None  # before the load

    @property
    def name(self) -> str:
        """The step's name, as people type it."""
        return self.step.__name__.replace("_", "-")

    @property
    def description(self) -> str:
        """The step's docstring, its first line."""
        return (self.step.__doc__ or "").partition("\n")[0]

    def labels(self, long: bool) -> list[str]:
        """Return a name for each of its runs in the long or the short form."""
        if long and self.times > 1:
            return [f"{self.name} {number}" for number in range(1, self.times + 1)]
        return [self.name]


def run(env: Environment, scenario: Scenario, label: str = "") -> Outcome:
    """Run one scenario; leave its plot."""
    outcome = Outcome(label or scenario.name, scenario.bound)
    env.begin(outcome)
    try:
        env.baseline()
        if scenario.prepare:
            scenario.prepare(env)
        began, waited = time.monotonic(), cpu_awaited()
        if scenario.load:
            _run_under_load(env, scenario)
        else:
            scenario.step(env)
            outcome.duration = time.monotonic() - began
        outcome.pressure = (cpu_awaited() - waited) / (time.monotonic() - began)
    except DeployError as error:
        outcome.red.append(str(error))
    finally:
        env.clean()
    return outcome


def cpu_awaited() -> float:
    """Return the seconds since the machine's start in which something waited for a core: a starved run is no fault."""
    try:
        some = Path("/proc/pressure/cpu").read_text().splitlines()[0]
    except OSError:  # a kernel that does not count them
        return 0
    return int(some.rpartition("=")[2]) / 1e6


def _run_under_load(env: Environment, scenario: Scenario) -> None:
    service = f"{scenario.name}-{int(time.time())}"  # each run's rows are its own
    file = BUILD / re.sub(r"[^a-z0-9]+", "-", env.outcome.name)
    without = [scenario.without_node(env)] if scenario.without_node else []
    env.load = load = Load(env.entries(*without), env.token, service, file.with_suffix(".bin"))
    # Each pod must have found the database, and the service's name must exist before it is read.
    until(lambda: all(map(answers, env.pod_addresses())), 60, "the database behind every pod")
    until(lambda: load.send("first"), 60, "the release")
    load.start()
    try:
        time.sleep(2)  # undisturbed
        scenario.step(env)
        time.sleep(2)
    finally:
        env.answers = load.stop()
        if env.answers:
            file.with_suffix(".svg").write_text(plot(env.outcome.name, env.answers, env.marks))
            env.outcome.measure(env.answers)
    for compare in env.comparisons:
        compare()
    env.clean()
    # What was not acknowledged is sent again, as clients do.
    acknowledged = {"first", *(answer.version for answer in env.answers if answer.version)}
    for version in sorted(load.keys.keys() - acknowledged):
        until(partial(load.send, version), 60, f"the second attempt at writing {version}")
    env.outcome.account(env.rows(service), acknowledged, set(load.keys))
