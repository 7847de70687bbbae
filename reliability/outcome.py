"""What a scenario promises and what came out: figures, verdict, table and plot."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import log10
from pathlib import Path

from pydantic import TypeAdapter

from reliability.load import RATE, Answer

WIDTH, HEIGHT, LEFT = 720, 160, 46  # SVG units


@dataclass(frozen=True)
class Bound:
    """What may happen at most. No acknowledged row is ever lost, and none comes twice."""

    failed: int = 0  # requests that were not answered 2xx
    errors: int = 0  # of these, neither 503 with Retry-After: refused, reset, hung, 500
    gap: float = 2.0  # seconds without a 2xx
    outage: float = 0.0  # seconds from the first failed request to the last
    slowest: float = 3.0  # seconds until an answer of any kind

    def __str__(self) -> str:
        return f"{upto(self.failed)} failed, {upto(self.errors)} errors, gap {self.gap:g} s, answer {self.slowest:g} s"


ANY = 10**9


def upto(most: int) -> str:
    """Return a limit for people."""
    return "any" if most >= ANY else str(most)


@dataclass
class Outcome:
    """A run's figures. Times are seconds, percentiles of all answers."""

    name: str
    bound: Bound
    requests: int = 0
    failed: int = 0
    errors: int = 0
    acknowledged: int = 0
    lost: int = 0
    duplicates: int = 0
    p50: float = 0
    p99: float = 0
    slowest: float = 0
    gap: float = 0
    outage: float = 0
    duration: float = 0
    late: float = 0  # how far the client itself fell behind its rate
    pressure: float = 0  # share of the run in which something on this machine waited for a core
    notes: list[str] = field(default_factory=list)
    red: list[str] = field(default_factory=list)

    @property
    def green(self) -> bool:
        """Whether everything is as promised."""
        return not self.red

    def measure(self, answers: Sequence[Answer]) -> None:
        """Fill in what the client saw, and compare it with the bound."""
        if not answers:
            self.red.append("the load got no answer")
            return
        latencies = sorted(answer.latency for answer in answers)
        began, ended = answers[0].at, max(answer.end for answer in answers)
        good = [began, *sorted(answer.end for answer in answers if answer.ok), ended]
        bad = [answer for answer in answers if not answer.ok]
        self.requests, self.failed = len(answers), len(bad)
        self.errors = sum(not answer.refused for answer in bad)
        self.acknowledged = sum(bool(answer.version) for answer in answers)
        self.p50, self.p99 = latencies[len(latencies) // 2], latencies[int(len(latencies) * 0.99)]
        self.slowest, self.duration = latencies[-1], ended - began
        self.gap = max(later - earlier for earlier, later in pairwise(good))
        self.outage = max((one.at for one in bad), default=0) - min((one.at for one in bad), default=0)
        self.late = max(answer.at - began - number / RATE for number, answer in enumerate(answers))
        for name in ("failed", "errors", "gap", "outage", "slowest"):
            if (measured := getattr(self, name)) > (most := getattr(self.bound, name)):
                self.red.append(f"{name} {measured:.4g} is more than {most:g}")
        if self.red:
            self.red += sorted({f"{answer.code} {answer.error[:110]}".strip() for answer in bad})[:6]

    def account(self, rows: dict[str, int], acknowledged: set[str], sent: set[str]) -> None:
        """Compare the database's rows (version: how many) with what was acknowledged and what was ever sent."""
        self.lost = len(acknowledged - rows.keys())
        self.duplicates = sum(count - 1 for count in rows.values())
        for what, number in (
            ("acknowledged rows are lost", self.lost),
            ("rows are there twice", self.duplicates),
            ("rows were never sent", len(rows.keys() - sent)),
            ("writes are not in the database after being sent again", len(sent - rows.keys())),
        ):
            if number:
                self.red.append(f"{number} {what}")

    def cells(self) -> list[str]:
        """Return what the table has in a row."""
        bound = f"{upto(self.bound.failed)} / {upto(self.bound.errors)} / {self.bound.gap:g} s"
        counts = (self.requests, self.failed, self.errors, self.acknowledged, self.lost, self.duplicates)
        times = f"{self.p50 * 1e3:.0f}", f"{self.p99 * 1e3:.0f}", f"{self.gap:.2f}", f"{self.duration:.0f}"
        verdict = "green" if self.green else "**red**: " + "; ".join(self.red)
        return [self.name, bound, *map(str, counts), *times, f"{self.pressure:.0%}", "; ".join([*self.notes, verdict])]

    def line(self) -> str:
        """Return one line for a terminal."""
        return ", ".join(f"{column}: {cell}" for column, cell in zip(COLUMNS, self.cells(), strict=True))


COLUMNS = (
    *("scenario", "bound: failed / errors / gap", "requests", "failed", "errors", "acknowledged", "lost", "twice"),
    *("p50 ms", "p99 ms", "gap s", "run s", "CPU awaited", "verdict"),
)


RUNS = TypeAdapter(list[Outcome])


def table(outcomes: Sequence[Outcome]) -> str:
    """Return all runs as Markdown."""
    rules = ["---", "---", *["---:"] * (len(COLUMNS) - 3), "---"]
    rows = ([cell.replace("|", "/") for cell in one.cells()] for one in outcomes)
    return "".join(f"| {' | '.join(row)} |\n" for row in (COLUMNS, rules, *rows))


def write(outcomes: Sequence[Outcome], directory: Path, keep: bool = False) -> None:
    """Leave table.md and table.json; `keep` leaves an earlier command's other runs in them."""
    directory.mkdir(parents=True, exist_ok=True)
    runs = {one.name: one for one in [*(read(directory) if keep else []), *outcomes]}
    (directory / "table.md").write_text(table(list(runs.values())))
    (directory / "table.json").write_bytes(RUNS.dump_json(list(runs.values()), indent=2) + b"\n")


def read(directory: Path) -> list[Outcome]:
    """Return the runs of earlier commands."""
    file = directory / "table.json"
    return RUNS.validate_json(file.read_bytes()) if file.exists() else []


def plot(title: str, answers: Sequence[Answer], marks: Sequence[tuple[float, str]]) -> str:
    """Return latency over time as SVG: time across, milliseconds up (logarithmic), failures in red."""
    began, ended = answers[0].at, max(answer.end for answer in answers)
    across = (WIDTH - LEFT - 10) / max(ended - began, 1)

    def y(seconds: float) -> float:
        """Return the height of a latency, from 1 ms at the bottom to 10 s at the top."""
        position = (log10(max(seconds, 0.001)) + 3) / 4
        return round(20 + (HEIGHT - 40) * (1 - min(position, 1)), 1)

    style = "text{font:11px sans-serif;fill:#555}line{stroke:#ccc}.mark{stroke:#777;stroke-dasharray:3}"
    style += "path{fill:none;stroke-linecap:round;stroke-width:4}.ok{stroke:#2a6fb0;stroke-width:2.6;stroke-opacity:.5}"
    style += ".refused{stroke:#d98200}.error{stroke:#c0202a}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{title}</title><style>{style}</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/><text x="{LEFT}" y="13">{title}</text>',
    ]
    for seconds in (0.001, 0.01, 0.1, 1, 10):
        label = f"{seconds * 1e3:g} ms" if seconds < 1 else f"{seconds:g} s"
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 10}" y1="{y(seconds)}" y2="{y(seconds)}"/>')
        parts.append(f'<text x="2" y="{y(seconds) + 4}">{label}</text>')
    for at, label in marks:
        x = round(LEFT + (at - began) * across, 1)
        parts.append(f'<line class="mark" x1="{x}" x2="{x}" y1="16" y2="{HEIGHT - 18}"/>')
        parts.append(f'<text x="{x + 3}" y="28">{label}</text>')
    dots: dict[str, dict[str, None]] = {"ok": {}, "refused": {}, "error": {}}  # lines of no length, one for each place
    for answer in answers:
        kind = "ok" if answer.ok else "refused" if answer.refused else "error"
        dots[kind][f"M{LEFT + (answer.at - began) * across:.0f} {y(answer.latency):.0f}h0"] = None
    parts += [f'<path class="{kind}" d="{"".join(places)}"/>' for kind, places in dots.items() if places]
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 4}">0 s</text>')
    parts.append(f'<text x="{WIDTH - 50}" y="{HEIGHT - 4}">{ended - began:.0f} s</text></svg>\n')
    return "\n".join(parts)
