"""The scenarios as tests: the short form, or with LONG=1 all of them, each as often as it says.

Tables and plots are left in build/release.
"""

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest

from flaskapp_deploy.cluster.localcluster import LocalCluster
from flaskapp_deploy.shell import DeployError
from reliability import mutations, scenarios
from reliability.outcome import Outcome, table, write
from reliability.stage import BUILD, Stage

LONG = bool(os.environ.get("LONG"))
RUNS = [
    pytest.param(one, f"{one.name} {number}" if LONG and one.times > 1 else one.name, id=f"{one.name}-{number}")
    for one in scenarios.ALL.values()
    for number in range(1, (one.times if LONG else 1) + 1)
    if LONG or one.short
]


@pytest.fixture(scope="module")
def stage(kubernetes: LocalCluster) -> Stage:
    made = Stage(kubernetes)
    made.make()
    return made


@pytest.fixture(scope="module")
def outcomes() -> Iterator[list[Outcome]]:
    found: list[Outcome] = []
    yield found
    print(table(found))


@pytest.mark.parametrize(("one", "label"), RUNS)
def test_scenario(stage: Stage, outcomes: list[Outcome], one: scenarios.Scenario, label: str) -> None:
    outcomes.append(scenarios.run(stage, one, label))
    write(outcomes, BUILD)
    assert outcomes[-1].green, outcomes[-1].line()


def test_a_scenario_that_breaks_off_is_undone_and_says_what_it_left(stage: Stage) -> None:
    undone = []

    def breaks_off(stage: Stage) -> None:
        stage.later("a thing that stays", lambda: stage.sql("SELECT 1 / 0"))
        stage.later("a thing that goes", lambda: undone.append("it went"))
        raise DeployError("the ground gave way")

    one = replace(scenarios.ALL["backup-and-restore"], act=breaks_off)  # without load
    outcome = scenarios.run(stage, one)
    assert undone == ["it went"]
    assert outcome.red[0] == "the ground gave way"
    assert outcome.red[1].startswith("left behind: a thing that stays")


@pytest.mark.skipif(not LONG, reason="the long form removes guards")
@pytest.mark.parametrize("one", mutations.ALL, ids=lambda one: one.name)
def test_a_missing_guard_is_seen(stage: Stage, one: mutations.Mutation) -> None:
    outcome = mutations.run(stage, one)
    write([outcome], BUILD / "mutations", keep=True)
    assert mutations.caught(outcome), outcome.line()
