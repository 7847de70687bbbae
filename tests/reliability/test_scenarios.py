"""The scenarios as tests: the short form, or with LONG=1 all of them, each as often as it says.

Tables and plots are left in build/release.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from flaskapp_deploy.cluster.localcluster import LocalCluster
from flaskapp_deploy.shell import DeployError
from reliability import mutations, scenario, scenarios
from reliability.environment import Environment
from reliability.outcome import Outcome, table, write
from reliability.release import BUILD, ROOT
from reliability.scenario import Scenario

LONG = bool(os.environ.get("LONG"))
RUNS = [
    pytest.param(one, label, id=f"{one.name}-{number}")
    for one in scenarios.ALL.values()
    for number, label in enumerate(one.labels(LONG), 1)
    if LONG or one.short
]


def test_every_scenario_has_a_result_in_the_document() -> None:
    rows = re.findall(
        r"^\| ([a-z0-9-]+)(?: \d)? \| .* green \|$", (ROOT / "docs/reliability.md").read_text(), re.MULTILINE
    )
    assert set(rows) == set(scenarios.ALL)


@pytest.fixture(scope="module")
def env(kubernetes: LocalCluster) -> Environment:
    environment = Environment(kubernetes)
    environment.make()
    return environment


@pytest.fixture(scope="module")
def outcomes() -> Iterator[list[Outcome]]:
    outcomes: list[Outcome] = []
    yield outcomes
    print(table(outcomes))


@pytest.mark.parametrize(("one", "label"), RUNS)
def test_scenario(env: Environment, outcomes: list[Outcome], one: Scenario, label: str) -> None:
    outcomes.append(scenario.run(env, one, label))
    write(outcomes, BUILD)
    assert outcomes[-1].green, outcomes[-1].line()


def test_a_scenario_that_breaks_off_is_undone_and_says_what_it_left(env: Environment) -> None:
    undone = []

    def break_off(env: Environment) -> None:
        env.later("a thing that stays", lambda: env.sql("SELECT 1 / 0"))
        env.later("a thing that goes", lambda: undone.append("it went"))
        raise DeployError("the ground gave way")

    one = replace(scenarios.ALL["backup-and-restore"], step=break_off)  # without load
    outcome = scenario.run(env, one)
    assert undone == ["it went"]
    assert outcome.red[0] == "the ground gave way"
    assert outcome.red[1].startswith("left behind: a thing that stays")


@pytest.mark.skipif(not LONG, reason="the long form removes guards")
@pytest.mark.parametrize("one", mutations.ALL, ids=lambda one: one.name)
def test_a_missing_guard_is_seen(env: Environment, one: mutations.Mutation) -> None:
    outcome = mutations.run(env, one)
    write([outcome], BUILD / "mutations", keep=True)
    assert mutations.caught(outcome), outcome.line()
