"""`make bench`: one table of all parts' figures, as Markdown and JSON, and a plot; docs/benchmarks.md has them.

A part that can't run on this machine says so and is skipped; its last figures stay in the table.
"""

import argparse
import sys
import time
from pathlib import Path

from benchmarks.figures import figure, parts

PAGE = Path(__file__).resolve().parents[2] / "docs/benchmarks.md"
PLOT = PAGE.with_suffix(".svg")


def measure(part: str) -> bool:
    """Measure a part and keep its figures; return whether that worked."""
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
    """Measure the parts, and print the table of all; 1 if none could be measured."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.partition("\n")[0])
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
