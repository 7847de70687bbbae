"""The scenarios: each one function, its bound declared beside it, in the order in which they run."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flaskapp_deploy.shell import DeployError, say
from reliability.load import RATE, Load
from reliability.outcome import Bound, Outcome, plot
from reliability.stage import BUILD, Stage

Step = Callable[[Stage], None]


@dataclass(frozen=True)
class Scenario:
    """`times` is how often the long form repeats it; the short form runs those that are `short`, once."""

    name: str
    act: Step
    bound: Bound
    short: bool
    times: int
    without_node: Callable[[Stage], str] | None  # clients don't enter by this one
    rate: int
    load: bool
    prepare: Step | None  # before the load

    @property
    def says(self) -> str:
        return (self.act.__doc__ or "").partition("\n")[0]


ALL: dict[str, Scenario] = {}


def scenario(
    bound: Bound | None = None,
    short: bool = False,
    times: int = 1,
    without_node: Callable[[Stage], str] | None = None,
    rate: int = RATE,
    load: bool = True,
    prepare: Step | None = None,
) -> Callable[[Step], Step]:
    """Register a function as the scenario of its name."""

    def register(act: Step) -> Step:
        name = act.__name__.replace("_", "-")
        ALL[name] = Scenario(name, act, bound or Bound(), short, times, without_node, rate, load, prepare)
        return act

    return register


def run(stage: Stage, one: Scenario, label: str = "") -> Outcome:
    """Run one scenario from a release that is well to one that is well again; leave its plot."""
    outcome = stage.outcome = Outcome(label or one.name, one.bound)
    stage.marks, stage.answers, stage.comparisons = [], [], []
    try:
        stage.baseline()
        if one.prepare:
            one.prepare(stage)
        began, waited = time.monotonic(), cpu_awaited()
        if one.load:
            _under_load(stage, one)
        else:
            one.act(stage)
            outcome.duration = time.monotonic() - began
        outcome.pressure = (cpu_awaited() - waited) / (time.monotonic() - began)
    except DeployError as error:
        outcome.red.append(str(error))
    finally:
        left = [f"left behind: {what}" for what in stage.clean()]
        outcome.red += left
        for line in left:  # an interrupted run has no other place to say it
            say(line)
    return outcome


def cpu_awaited() -> float:
    """Seconds since the machine's start in which something waited for a core: it tells a starved run from a fault."""
    try:
        some = Path("/proc/pressure/cpu").read_text().splitlines()[0]
    except OSError:  # a kernel that does not say
        return 0
    return int(some.rpartition("=")[2]) / 1e6


def _under_load(stage: Stage, one: Scenario) -> None:
    # Each run's rows are its own.
    service = f"{one.name}-{int(time.time())}"
    without = [one.without_node(stage)] if one.without_node else []
    file = re.sub(r"[^a-z0-9]+", "-", stage.outcome.name)
    stage.load = load = Load(stage.entries(*without), stage.token, service, BUILD / f"{file}.bin", one.rate)
    try:
        with stage.loaded(load):
            one.act(stage)
    finally:
        if stage.answers:
            (BUILD / f"{file}.svg").write_text(plot(stage.outcome.name, stage.answers, stage.marks))
            stage.outcome.measure(stage.answers, one.rate)
    for compare in stage.comparisons:
        compare()
    left = stage.clean()
    stage.outcome.red += [f"left behind: {what}" for what in left]
    acknowledged = stage.settle(load)
    stage.outcome.account(stage.rows(service), acknowledged | {"first"}, set(load.keys))


# In this order they run.
from reliability.scenarios import planned  # noqa: E402, F401, I001 - registers
from reliability.scenarios import rotation  # noqa: E402, F401
from reliability.scenarios import faults  # noqa: E402, F401
from reliability.scenarios import recovery  # noqa: E402, F401
