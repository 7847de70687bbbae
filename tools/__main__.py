"""`python -m tools [GROUP…]`: build what is missing and print the directories that hold the programs, a line each."""

import argparse
import sys

from tools import ToolError, binaries, groups, say


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools", description="Build the pinned command-line tools.")
    parser.add_argument("group", nargs="*", help=f"which ones: {', '.join(groups())} (default: all but kind)")
    chosen = parser.parse_args().group or [group for group in groups() if group != "kind"]
    try:
        for group in chosen:
            print(binaries(group))
    except ToolError as error:
        say(f"tools: {error}")
        return 1
    except KeyboardInterrupt:
        say("tools: interrupted; the next run goes on from here")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
