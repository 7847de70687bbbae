"""What fits on t4g.small nodes, and what a release uses there: docs/capacity.md.

make bench SUITE=capacity                          # what fits, by requests; what it carries, calculated
make bench SUITE=capacity PART="--measure NAME"    # memory and CPU under load, on the local cluster NAME
"""

import argparse
import os

from benchmarks.capacity import measure, room, scale
from flaskapp_deploy import programs


def main() -> None:
    """Print the tables, then measure if asked to."""
    parser = argparse.ArgumentParser(prog="make bench SUITE=capacity", description=__doc__.partition("\n")[0])
    parser.add_argument("--measure", metavar="NAME", default="", help="instance of the local cluster to measure on")
    parser.add_argument("--seconds", type=int, default=60, help="length of each load")
    arguments = parser.parse_args()
    os.environ["PATH"] = f"{programs.binaries('chart')}:{os.environ['PATH']}"
    for nodes, releases in (room.ONE_NODE, room.TWO_NODES):
        names = " and ".join(f"`{files[-1]}`" for _, *files in releases)
        print(f"\n{names} on {nodes} node{'s' * (nodes > 1)}:\n")
        print("\n".join(room.table(nodes, room.asked(releases))))
    print("\n" + "\n".join(scale.by_nodes()) + "\n\n" + "\n".join(scale.by_rate()))
    if arguments.measure:
        measure.run(arguments.measure, arguments.seconds)


if __name__ == "__main__":
    main()
