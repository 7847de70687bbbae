"""`make reliability PART="[SCENARIO…] [--long]"`: change and hurt a release under load, and print what clients saw.

The cluster is the instance named by INSTANCE (`releases` where none is), made by
`deploy/flaskapp-deploy cluster up --name releases --nodes 2`. Tables and plots go to build/release. Scenarios that are
named change their own lines of the table.
"""

import os
import signal
import sys
from collections.abc import Callable
from functools import partial

import click

from flaskapp_deploy import machine
from flaskapp_deploy.cluster import lifecycle
from flaskapp_deploy.shell import DeployError, say
from reliability import mutations, scenario, scenarios
from reliability.environment import Environment
from reliability.outcome import Outcome, table, write
from reliability.release import BUILD

MEMORY = 2 * 2**30  # bytes that must be free: two nodes, six pods and the client
Run = Callable[[Environment], Outcome]


@click.command(help=__doc__.partition("\n")[0])
@click.argument("names", nargs=-1, metavar="[SCENARIO]...")
@click.option("--list", "listing", is_flag=True, help="Print all scenarios, and what each promises.")
@click.option("--long", is_flag=True, help="Run all scenarios, each as often as it says, instead of the short form.")
@click.option("--mutations", "mutate", is_flag=True, help="Remove each guard once: its scenario turns red.")
def main(names: tuple[str, ...], listing: bool, long: bool, mutate: bool) -> None:
    """Run scenarios or mutations; exit with 1 where one is not as it should be."""
    if listing:
        print("\n".join(f"{one.name:32} {one.description} [{one.bound}]" for one in scenarios.ALL.values()))
        return
    # A shell's background job ignores SIGINT, and an interrupted scenario has things to undo.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    runs = mutation_runs(names) if mutate else scenario_runs(names, long)
    outcomes: list[Outcome] = []
    try:
        env = prepare_environment(os.environ.get("INSTANCE", "releases"))
        for run in runs:
            outcomes.append(run(env))
            say(outcomes[-1].line())
            # After each, so that an interrupted command leaves a table.
            write(outcomes, BUILD / "mutations" if mutate else BUILD, keep=bool(names))
    except KeyboardInterrupt:
        say("reliability: interrupted; what was done is undone, but for what is printed above; the release stays")
        sys.exit(130)
    print(table(outcomes))
    expected = [mutations.caught(one) if mutate else one.green for one in outcomes]
    if mutate:
        print(f"{sum(expected)} of {len(expected)} guards are missed when they are gone")
    sys.exit(not all(expected))


def scenario_runs(names: tuple[str, ...], long: bool) -> list[Run]:
    """Return the runs of these scenarios, or of the short or long form."""
    if unknown := [name for name in names if name not in scenarios.ALL]:
        raise DeployError(f"there is no scenario {unknown[0]!r}; `make reliability PART=--list` prints them all")
    every = scenarios.ALL.values()
    chosen = [scenarios.ALL[name] for name in names] or [one for one in every if long or one.short]
    return [partial(scenario.run, scenario=one, label=label) for one in chosen for label in one.labels(long)]


def mutation_runs(names: tuple[str, ...]) -> list[Run]:
    """Return the runs of these scenarios (default: all) without the guards that they have."""
    guarded = dict.fromkeys(one.scenario for one in mutations.ALL)
    if unknown := [name for name in names if name not in guarded]:
        raise DeployError(f"no guard is removed for {unknown[0]!r}; these are: {', '.join(guarded)}")
    return [partial(mutations.run, mutation=one) for one in mutations.ALL if not names or one.scenario in names]


def prepare_environment(name: str) -> Environment:
    """Return the release on the instance of that name.

    Raises:
        DeployError: there is no such instance, it has one node, or too little memory is free.
    """
    cluster = lifecycle.existing(name)
    if len(cluster.nodes) < 2:
        raise DeployError(f"instance {name!r} has one node, and the scenarios need two: run `cluster node add`")
    free = machine.available_memory()
    if free < MEMORY:
        raise DeployError(f"{free / 2**30:.1f} GiB of memory are free, and the scenarios need {MEMORY / 2**30:.0f}")
    env = Environment(lifecycle.up(name))
    env.make()
    return env


if __name__ == "__main__":
    main()
