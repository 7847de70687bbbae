"""A figure: what was measured, and beside what; the table and the plot of all."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any
from xml.sax.saxutils import escape

RESULTS = Path(__file__).with_name("results.json")
WIDTH, ROW, LABEL = 800, 26, 430


@dataclass(frozen=True)
class Figure:
    """Samples of both sides, measured in turn; `other` is empty if there is nothing to compare with."""

    what: str
    unit: str
    ours: Sequence[float]
    beside: str = ""
    other: Sequence[float] = ()

    @property
    def ratio(self) -> float | None:
        """The median of ours, divided by the other side's."""
        return median(self.ours) / median(self.other) if self.other else None


def machine() -> str:
    """Describe this machine: cores, memory, system, load."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}, Python {platform.python_version()}"
    return f"{os.cpu_count()} cores of {platform.machine()}, {memory:.0f} GiB, {system}, load {os.getloadavg()[0]:.0f}"


def spread(values: Sequence[float]) -> str:
    """Return `median (lowest-highest)`."""
    digits = 0 if median(values) >= 100 else 1 if median(values) >= 10 else 2
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def keep(part: str, figures: list[Figure], path: Path = RESULTS) -> None:
    """Store a part's figures beside those of the others, which may be from another day."""
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    now = datetime.now(UTC).date().isoformat()
    results[part] = {"date": now, "machine": machine(), "figures": [asdict(figure) for figure in figures]}
    path.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")


def kept(path: Path = RESULTS) -> dict[str, tuple[str, str, list[Figure]]]:
    """Return the date, the machine and the figures of each part."""
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return {
        part: (result["date"], result["machine"], [Figure(**figure) for figure in result["figures"]])
        for part, result in results.items()
    }


def table(results: dict[str, tuple[str, str, list[Figure]]]) -> list[str]:
    """Return the Markdown table; ratios come first, as they depend less on the machine."""
    rows = [(part, figure) for part, (_, _, figures) in results.items() for figure in figures]
    rows.sort(key=lambda row: row[1].ratio is None)
    lines = ["| ratio | what | ours | beside it | by |", "| ---: | --- | --- | --- | --- |"]
    for part, each in rows:
        ratio = "" if each.ratio is None else f"**{each.ratio:.2f}**"
        beside = f"{each.beside}: {spread(each.other)}" if each.other else ""
        command = f"`make bench PART={part}`"
        lines.append(f"| {ratio} | {each.what}, {each.unit} | {spread(each.ours)} | {beside} | {command} |")
    return lines


def machines(results: dict[str, tuple[str, str, list[Figure]]]) -> list[str]:
    """Return a list of where and when each part was measured."""
    return [f"- `{part}`: {date}, {where}" for part, (date, where, _) in results.items()]


def plot(results: dict[str, tuple[str, str, list[Figure]]]) -> str:
    """Return an SVG with a bar for each ratio, and a line where both sides are equal."""
    figures = [figure for _, _, measured in results.values() for figure in measured if figure.ratio is not None]
    ratios = [figure.ratio or 0 for figure in figures]
    scale, height = (WIDTH - LABEL - 60) / max([1.0, *ratios]), ROW * len(figures) + 10
    one = LABEL + scale
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">']
    parts.append(f'<rect width="{WIDTH}" height="{height}" fill="white"/>')
    for number, (figure, ratio) in enumerate(zip(figures, ratios, strict=True)):
        top = 5 + number * ROW
        text = escape(f"{figure.what}, {figure.unit}, of {figure.beside}")
        parts.append(f'<text x="{LABEL - 8}" y="{top + 16}" font-size="11" text-anchor="end">{text}</text>')
        parts.append(f'<rect x="{LABEL}" y="{top + 4}" width="{ratio * scale:.0f}" height="16" fill="#0969da"/>')
        parts.append(f'<text x="{LABEL + ratio * scale + 5:.0f}" y="{top + 16}" font-size="11">{ratio:.2f}</text>')
    parts.append(f'<line x1="{one:.0f}" x2="{one:.0f}" y1="0" y2="{height}" stroke="black" stroke-dasharray="3"/>')
    return "\n".join([*parts, "</svg>", ""])
