"""Compare the service with raw WSGI, bare Flask and the ORM, in turn within one run; medians and spread.

Every side is gunicorn with one worker and four threads, and eight clients that keep their connection. The service runs
as in production: log, metrics, request id, headers, validation, and a token for writes.
"""

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from statistics import median

from benchmarks.service import memory, plans
from benchmarks.service.setup import (
    Side,
    execute,
    fetch,
    flaskapp,
    get,
    load,
    post,
    postgres,
    prepared,
    psql,
    spread,
    timed,
)
from flaskapp_deploy.up.postgres import Postgres

BASELINES = ("raw", "bare", "orm")
GAP = "interval '5 minutes'"  # between two deployments


@dataclass
class Run:
    """One run of measurements: its options, its server, and databases that are filled at the first use."""

    options: argparse.Namespace
    stack: ExitStack
    server: Postgres
    directory: Path

    @cached_property
    def small(self) -> dict[str, str]:
        """The environment of a database with 10,000 deployments."""
        return prepared(self.server, "small", 10_000, GAP)

    @cached_property
    def large(self) -> dict[str, str]:
        """The environment of a database with `--rows` deployments."""
        return prepared(self.server, "large", self.options.rows, GAP)


def main() -> None:
    """Run the parts that are named, or all."""
    parser = argparse.ArgumentParser(prog="make bench SUITE=service", description=__doc__)
    parser.add_argument("part", nargs="*", help=f"of {', '.join(PARTS)}; all if none is named")
    parser.add_argument("--seconds", type=float, default=4, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the large table")
    parser.add_argument(
        "--requests", type=int, default=50_000, help="while memory is watched; 1000000 is the long form"
    )
    options = parser.parse_args()
    if unknown := set(options.part) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # unwinds the stack, which ends the servers
    with ExitStack() as stack:
        server, directory = stack.enter_context(postgres())
        run = Run(options, stack, server, directory)
        for name in options.part or PARTS:
            with ExitStack() as run.stack:  # the sides of a part end with it
                PARTS[name](run)


def speeds(run: Run) -> None:
    """Measure requests/s against the baselines, latency at half of that rate, and the CPU time of a request.

    Other work on the machine lowers the rates of all sides, and hardly changes the CPU time.
    """
    sides = {
        "flaskapp": Side(run.stack, run.small),
        "raw": Side(run.stack, run.small, "benchmarks.service.raw:app"),
        "bare": Side(run.stack, run.small, "benchmarks.service.bare:app"),
        "orm": Side(run.stack, run.small, "benchmarks.service.orm:app"),
    }
    mine = sides["flaskapp"].port
    newest = json.loads(fetch(mine, "/api/v1/deployments"))["items"][0]["id"]
    for baseline in ("raw", "bare"):
        same_bytes(mine, sides[baseline].port, f"/api/v1/deployments/{newest}")
    cases = {
        "GET one": (get(f"/api/v1/deployments/{newest}"), ("flaskapp", "raw", "bare", "orm")),
        "GET twenty": (get("/api/v1/deployments"), ("flaskapp", "raw", "bare", "orm")),
        "POST": (post(), ("flaskapp", "raw", "bare")),
    }
    columns = "".join(f"{side:>18}" for side in ("flaskapp", "raw", "bare Flask", "orm"))
    print(f"{'':<20}{columns}{'of raw':>9}{'of bare':>9}{'of orm':>9}")
    for name, (request, names) in cases.items():
        compared = {side: sides[side] for side in names}
        rates, costs = alternating(compared, request, run.options.rounds, run.options.seconds)
        faster = {side: ratio(rates["flaskapp"], rates[side]) for side in names[1:]}
        cheaper = {side: ratio(costs[side], costs["flaskapp"]) for side in names[1:]}
        show(f"{name}, a second", rates, faster)
        show("  µs of processor", costs, cheaper)
        if name == "GET one":
            half = median(rates["flaskapp"]) / 2
            waits = [load(mine, request, run.options.seconds, half) for _ in range(run.options.rounds)]
            p50, p99 = (median(wait[p] for wait in waits) for p in ("p50", "p99"))
            print(f"  at half of the rate: p50 {p50:.1f} ms, p99 {p99:.1f} ms", flush=True)


Measured = dict[str, list[float]]


def alternating(sides: dict[str, Side], request: bytes, rounds: int, seconds: float) -> tuple[Measured, Measured]:
    """Measure each side in each round; return the requests/s, and the server's CPU time of a request in µs."""
    rates: Measured = {side: [] for side in sides}
    costs: Measured = {side: [] for side in sides}
    for side in sides.values():  # warm
        load(side.port, request, 1)
    for _ in range(rounds):
        for name, side in sides.items():
            before = side.processor()
            rate = load(side.port, request, seconds)["rate"]
            rates[name].append(rate)
            costs[name].append(1e6 * (side.processor() - before) / (rate * seconds))
    return rates, costs


def ratio(upper: list[float], lower: list[float]) -> float:
    """Return the median of the rounds' ratios: changes from one round to the next affect both sides."""
    return median(one / other for one, other in zip(upper, lower, strict=True))


def show(name: str, measured: Measured, ratios: dict[str, float]) -> None:
    """Print a row: each side's figures, and the ratios to the baselines."""
    values = "".join(f"{spread(measured[side]) if side in measured else '':>18}" for side in ("flaskapp", *BASELINES))
    print(f"{name:<20}{values}{''.join(f'{value:>9.2f}' for value in ratios.values())}", flush=True)


def inside(run: Run) -> None:
    """Measure the CPU time of one GET in each side's own code, without a server."""
    with ExitStack() as stack:
        listed = json.loads(fetch(Side(stack, run.small).port, "/api/v1/deployments"))
    path = f"/api/v1/deployments/{listed['items'][0]['id']}"
    print("\nGET one, µs of processor", flush=True)
    command = [sys.executable, "-m", "benchmarks.service.inside", path]
    subprocess.run(command, check=True, env=run.small, stderr=subprocess.DEVNULL)


def growth(run: Run) -> None:
    """Compare the same reads on a small table and on a large one, with equally many deployments in range."""
    options = run.options
    ports = {"small": Side(run.stack, run.small).port, "large": Side(run.stack, run.large).port}
    today = datetime.now(UTC).date()
    range_ = f"environment=environment-1&from={today.replace(day=1)}&to={today}"
    paths = {
        "DORA": f"/api/v1/dora?{range_}",
        "overview": "/api/v1/overview",
        "GET twenty": "/api/v1/deployments",
    }
    print(f"\n{'milliseconds':<20}{'10 thousand':>18}{f'{options.rows:,}':>18}{'ratio':>9}")
    for name, path in paths.items():
        times: dict[str, list[float]] = {side: [] for side in ports}
        for _ in range(options.rounds + 1):
            for side, port in ports.items():
                times[side].append(load(port, get(path), options.seconds / 2, clients=1)["p50"])
        small_ms, large_ms = (times[side][1:] for side in ("small", "large"))
        print(f"{name:<20}{spread(small_ms):>18}{spread(large_ms):>18}{ratio(large_ms, small_ms):>9.2f}", flush=True)


def imports(run: Run) -> None:
    """Compare `flaskapp import` with psql's COPY of the same rows into the same table with its indexes."""
    rows, server, directory = 100_000, run.server, run.directory
    source = prepared(server, "source", rows, GAP)
    lines, table = directory / "lines", directory / "table"
    flaskapp(source, "export", str(lines))
    psql(source, f"\\copy deployments to '{table}'")
    seconds: dict[str, list[float]] = {"import": [], "copy": []}
    for _ in range(3):
        execute(server, "source", "TRUNCATE deployments CASCADE")
        seconds["import"].append(timed(lambda: flaskapp(source, "import", str(lines))))
        execute(server, "source", "TRUNCATE deployments CASCADE")
        seconds["copy"].append(timed(lambda: psql(source, f"\\copy deployments from '{table}'")))
    of_copy = ratio(seconds["copy"], seconds["import"])
    mine, theirs = spread(seconds["import"], 1), spread(seconds["copy"], 1)
    print(f"\n{rows:,} rows in seconds: import {mine}, COPY {theirs}, of COPY {of_copy:.2f}")


def start(run: Run) -> None:
    """Measure from the process's start to /readyz, beside the bare import of the libraries."""
    ready, bare = starts(run.small)
    print(f"\nseconds to /readyz {spread(ready, 2)}, bare import {spread(bare, 2)}, ratio {ratio(ready, bare):.2f}")


def starts(environment: dict[str, str]) -> tuple[list[float], list[float]]:
    """Return the seconds to /readyz, and those of the bare import of the libraries, measured in turn."""
    ready, bare = [], []
    command = [sys.executable, "-c", f"import {memory.LIBRARIES}"]
    for _ in range(5):
        bare.append(timed(lambda: subprocess.run(command, check=True, env=environment, stdout=-3)))
        with ExitStack() as stack:
            ready.append(timed(lambda: Side(stack, environment)))
    return ready, bare


def same_bytes(mine: int, baseline: int, path: str) -> None:
    """Exit with an error unless both ports answer with the same bytes."""
    if fetch(mine, path) != fetch(baseline, path):
        raise SystemExit("the baseline gives other bytes than the service; it would measure something else")


def questions(run: Run) -> None:
    """Print the plans on the large table."""
    assert run.large
    plans.explain(run.server, "large")


def working_set(run: Run) -> None:
    """Measure the server's memory while it answers requests."""
    memory.measure(run.stack, run.small, run.options.requests)


PARTS: dict[str, Callable[[Run], None]] = {
    "speeds": speeds,
    "inside": inside,
    "growth": growth,
    "plans": questions,
    "import": imports,
    "start": start,
    "memory": working_set,
}


if __name__ == "__main__":
    main()
