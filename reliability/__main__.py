"""`python -m reliability [SCENARIO…] [--long]`: change and hurt a release under load, and print what clients saw.

The cluster is the instance named by INSTANCE (`releases` where none is), made by
`deploy/flaskapp-deploy cluster up --name releases --nodes 2`. Tables and plots go to build/release. Scenarios that are
named change their own lines of the table.
"""

import argparse
import os
import signal
import sys

from flaskapp_deploy.cluster import lifecycle
from flaskapp_deploy.shell import DeployError, say
from reliability import mutations, scenarios
from reliability.outcome import table, write
from reliability.stage import BUILD, Stage

MEMORY = 2 * 2**30  # bytes that must be free: two nodes, six pods and the client


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m reliability", description=__doc__.partition("\n")[0])
    parser.add_argument("scenario", nargs="*", help="which ones (default: the short form)")
    parser.add_argument("--list", action="store_true", help="say what there is, and promise what for each")
    parser.add_argument("--long", action="store_true", help="all scenarios, each as often as it says")
    parser.add_argument("--mutations", action="store_true", help="remove each guard once: its scenario turns red")
    parser.add_argument("--times", type=int, default=0, help="repeat each so often")
    chosen = parser.parse_args()
    if chosen.list:
        print("\n".join(f"{one.name:32} {one.says} [{one.bound}]" for one in scenarios.ALL.values()))
        return 0
    # A shell's background job ignores SIGINT, and an interrupted scenario has things to undo.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        if chosen.mutations:
            return mutate(chosen.scenario)
        return run_scenarios(chosen.scenario, chosen.long, chosen.times)
    except DeployError as error:
        print(f"reliability: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        say("reliability: interrupted; what was done is undone, but for what is said above; the release stays")
        return 130


def run_scenarios(names: list[str], long: bool, times: int) -> int:
    """Run them one after another; the table is written after each, so an interrupted run leaves one."""
    if unknown := [name for name in names if name not in scenarios.ALL]:
        raise DeployError(f"there is no scenario {unknown[0]!r}; `python -m reliability --list` says which there are")
    every = scenarios.ALL.values()
    chosen = [scenarios.ALL[name] for name in names] or [one for one in every if long or one.short]
    stage = ready_stage(os.environ.get("INSTANCE", "releases"))
    outcomes = []
    for one in chosen:
        repeats = times or (one.times if long else 1)
        for number in range(1, repeats + 1):
            outcomes.append(scenarios.run(stage, one, f"{one.name} {number}" if repeats > 1 else one.name))
            say(outcomes[-1].line())
            write(outcomes, BUILD, keep=bool(names))
    print(table(outcomes))
    return 0 if all(one.green for one in outcomes) else 1


def mutate(names: list[str]) -> int:
    """Run the mutations of these scenarios (default: all); print what each was caught by."""
    guarded = dict.fromkeys(one.scenario for one in mutations.ALL)
    if unknown := [name for name in names if name not in guarded]:
        raise DeployError(f"no guard is removed for {unknown[0]!r}; these are: {', '.join(guarded)}")
    stage = ready_stage(os.environ.get("INSTANCE", "releases"))
    outcomes = []
    for one in mutations.ALL:
        if not names or one.scenario in names:
            outcomes.append(mutations.run(stage, one))
            say(outcomes[-1].line())
            write(outcomes, BUILD / "mutations", keep=bool(names))
    print(table(outcomes))
    missed = [one.name for one in outcomes if not mutations.caught(one)]
    print(f"{len(outcomes) - len(missed)} of {len(outcomes)} guards are missed when they are gone")
    return 1 if missed else 0


def ready_stage(name: str) -> Stage:
    """The release on the instance of that name.

    Raises:
        DeployError: there is no such instance, or it has one node.
        DeployError: too little memory is free.
    """
    instance = lifecycle.existing(name)
    if len(instance.nodes) < 2:
        raise DeployError(f"instance {name!r} has one node, and the scenarios need two: run `cluster node add`")
    with open("/proc/meminfo") as lines:  # noqa: PTH123
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    if free < MEMORY:
        raise DeployError(f"{free / 2**30:.1f} GiB of memory are free, and the scenarios need {MEMORY / 2**30:.0f}")
    stage = Stage(lifecycle.up(name))
    stage.make()
    return stage


if __name__ == "__main__":
    sys.exit(main())
