"""Time `helm template` of the chart with its database beside that of `helm create`'s chart, in milliseconds."""

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from flaskapp_deploy import programs

CHART = Path(__file__).resolve().parents[2] / "charts/flaskapp"
IMAGE = "image.repository=shop,image.tag=1"
DATABASE = "postgresql.enabled=true,postgresql.auth.existingSecret=database"


def milliseconds(*command: str | Path) -> tuple[float, float]:
    """Run a command; return its milliseconds of wall clock, and of CPU, which other work disturbs less."""
    started, before = time.perf_counter(), os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return (time.perf_counter() - started) * 1000, cpu * 1000


def alternating(rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Render both sides in turn; return each side's milliseconds of wall clock and of CPU."""
    os.environ["PATH"] = f"{programs.binaries('chart')}:{os.environ['PATH']}"
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "made"
        milliseconds("helm", "create", made)
        milliseconds("helm", "dependency", "build", "--skip-refresh", CHART)
        commands: dict[str, list[str | Path]] = {
            "flaskapp": ["web", CHART, "--set", IMAGE],
            "flaskapp, with PostgreSQL": ["web", CHART, "--set", f"{IMAGE},{DATABASE}"],
            "the chart of `helm create`": ["web", made],
        }
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(rounds):
            for name, arguments in commands.items():
                times[name].append(milliseconds("helm", "template", *arguments))
    return times


def main() -> None:
    """Print a table of both sides."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks chart --", description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    times = alternating(parser.parse_args().rounds)
    print("| helm template | median | least | most | median CPU |\n| --- | ---: | ---: | ---: | ---: |")
    for name, taken in times.items():
        clock, cpu = zip(*taken, strict=True)
        figures = statistics.median(clock), min(clock), max(clock), statistics.median(cpu)
        print(f"| {name} | {' | '.join(f'{figure:.0f}' for figure in figures)} |")


if __name__ == "__main__":
    main()
