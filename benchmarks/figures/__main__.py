"""`make bench`: one table of what the parts came to, as Markdown and JSON, and a plot: docs/benchmarks.md.

A part that can't run here says so, and the rest goes on; what it came to the last time stays in the table.
"""

import argparse
import sys
import time
from pathlib import Path

from benchmarks.figures import figure, parts

PAGE = Path(__file__).resolve().parents[2] / "docs/benchmarks.md"
PLOT = PAGE.with_suffix(".svg")


def measure(part: str) -> bool:
    """Measure a part and keep its figures; return whether it could be."""
    began = time.monotonic()
    try:
        figures = parts.PARTS[part]()
    except (Exception, SystemExit) as error:
        cause = str(error).strip().splitlines()
        print(f"{part}: left out: {cause[0] if cause else type(error).__name__}", file=sys.stderr)
        return False
    figure.keep(part, figures)
    print(f"{part}: measured in {time.monotonic() - began:.0f} s", file=sys.stderr)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks figures --", description=__doc__)
    parser.add_argument("part", nargs="*", help=f"of {', '.join(parts.PARTS)}; all if none is named")
    parser.add_argument("--kept", action="store_true", help="Measure nothing: print what is kept.")
    arguments = parser.parse_args()
    if unknown := set(arguments.part) - set(parts.PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    measured = [measure(part) for part in arguments.part or parts.PARTS if not arguments.kept]
    results = figure.kept()
    PLOT.write_text(figure.plot(results))
    print("\n".join([*figure.table(results), "", *figure.machines(results)]))
    return 0 if arguments.kept or any(measured) else 1


if __name__ == "__main__":
    sys.exit(main())
