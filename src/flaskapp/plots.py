"""The geometry of plots; the templates draw them as inline SVG."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

WIDTH, ROW, MARGIN = 720, 32, 110  # SVG units


@dataclass(frozen=True)
class Mark:
    """A point or a bar in SVG units; `label` says what it shows."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    label: str
    link: str = ""


@dataclass(frozen=True)
class Plot:
    """A plot of `width` by `height` SVG units."""

    width: int
    height: int
    marks: list[Mark]
    rows: list[tuple[str, int]]  # names at the left side, and their y
    ends: tuple[str, str]  # labels of the left and the right end of the axis
    most: int = 0  # the value of the highest bar


def timeline(items: list[dict[str, Any]], environments: list[str]) -> Plot | None:
    """Plot deployments (newest first) over time, one row for each environment; None without deployments."""
    if not items:
        return None
    times = [datetime.fromisoformat(item["started_at"]).timestamp() for item in items]
    first, length = min(times), max(max(times) - min(times), 1)
    rows = [(name, ROW // 2 + ROW * number) for number, name in enumerate(environments)]
    height_of = dict(rows)
    marks = [
        Mark(
            x=round(MARGIN + (WIDTH - MARGIN - 20) * (time - first) / length, 1),
            y=height_of[item["environment"]],
            width=0,
            height=0,
            kind=item["status"],
            label=f"{item['version']} {item['status'].replace('_', ' ')} in {item['environment']}",
            link=item["id"],
        )
        for item, time in zip(items, times, strict=True)
    ]
    return Plot(WIDTH, ROW * len(rows) + 20, marks, rows, (items[-1]["started_at"][:10], items[0]["started_at"][:10]))


def days(daily: list[dict[str, Any]]) -> Plot:
    """Plot a bar for each day: successes, and failures on top of them."""
    highest = max(max(item["succeeded"] + item["failed"] for item in daily), 1)
    step = WIDTH / len(daily)
    height = 140
    marks = []
    for number, item in enumerate(daily):
        base = 0.0
        for kind in ("succeeded", "failed"):
            tall = round(height * item[kind] / highest, 1)
            base += tall
            if tall:
                label = f"{item['day']}: {item[kind]} {kind}"
                marks.append(Mark(round(number * step, 1), height - base, round(step * 0.8, 1), tall, kind, label))
    return Plot(WIDTH, height + 20, marks, [], (daily[0]["day"], daily[-1]["day"]), highest)
