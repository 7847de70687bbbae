"""How far a release scales, calculated from the measured CPU time of a request.

One request a second that takes a millisecond of CPU is one millicore.
"""

from math import ceil

import yaml

from benchmarks.capacity import room

MEASURED, BASELINE = room.NODE["measured"], room.NODE["baseline"]["cpu"]
VALUES, LEDGER = (
    yaml.safe_load((room.ROOT / file).read_text()) for file in ("charts/flaskapp/values.yaml", room.LEDGER)
)
WEB, DATABASE = MEASURED["web"]["milliseconds"], MEASURED["database"]["milliseconds"]
SUSTAINED = int(BASELINE.removesuffix("m")) - room.NODE["system_uses"]  # millicores of a node, for the release
AUTOSCALED = VALUES["autoscaling"]["targetCPUUtilizationPercentage"] / 100
REQUESTED = int(VALUES["resources"]["requests"]["cpu"].removesuffix("m"))
RESERVED = VALUES["database"]["reservedConnections"]


def serving(nodes: int) -> int:
    """Return how many pods can serve so that a rollout still fits."""
    plan = room.ONE_NODE if nodes == 1 else room.TWO_NODES
    parts = room.asked(plan[1])
    one = parts["web, during a rollout"]
    others = sum((part for name, part in parts.items() if name != "web"), room.Room())
    free = room.left(nodes) - others
    return min(free.pods, free.memory // one.memory, free.cpu // one.cpu)


def connections(pods: int) -> int:
    """Return how many database connections this number of pods can open, with one more pod in a rollout."""
    return int((pods + 1) * LEDGER["workers"] * LEDGER["threads"] + RESERVED)


def most_pods() -> int:
    """Return for how many pods the database has connections, by the chart's own rule."""
    return next(pods for pods in range(1000, 0, -1) if connections(pods) <= VALUES["database"]["maxConnections"])


def carried(nodes: int) -> tuple[int, str]:
    """Return the sustained requests/s, and what limits them."""
    pods = min(serving(nodes), most_pods())
    idle = MEASURED["database"]["idle"] + pods * MEASURED["web"]["idle"]
    together = (nodes * SUSTAINED - idle) / (WEB + DATABASE)
    database = (SUSTAINED - MEASURED["database"]["idle"]) / DATABASE
    return int(min(together, database)), "CPU of all nodes" if together < database else "CPU of the database's node"


def by_nodes() -> list[str]:
    """Return a Markdown table of pods and requests/s by number of nodes."""
    lines = [
        "| t4g.small | pods that fit | that have connections | requests/s, sustained (calculated) | what ends it |"
    ]
    lines.append("| ---: | ---: | ---: | ---: | --- |")
    for nodes in (1, 2, 5):
        rate, limit = carried(nodes)
        lines.append(f"| {nodes} | {serving(nodes)} | {most_pods()} | {rate} | {limit} |")
    return lines


def by_rate() -> list[str]:
    """Return a Markdown table of CPU, pods and connections by requests/s."""
    lines = [
        f"| requests/s | web vCPU | database vCPU | pods of {REQUESTED}m | connections "
        "| pods of 1000m | connections | MB/s |",
        "| ---: |" + " ---: |" * 7,
    ]
    for rate in (100, 1000, 10_000):
        web, database = rate * WEB, rate * DATABASE
        small, large = (ceil(web / (size * AUTOSCALED)) for size in (REQUESTED, 1000))
        lines.append(
            f"| {rate} | {web / 1000:.1f} | {database / 1000:.1f} | {small} | {connections(small)} | {large} "
            f"| {connections(large)} | {rate * MEASURED['kilobytes'] / 1000:.0f} |"
        )
    return lines
