"""`make bench SUITE=…`, or `python -m benchmarks SUITE… [-- OPTIONS]`: run suites of measurements in turn."""

import argparse
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SUITES = sorted(path.parent.name for path in HERE.glob("*/__main__.py"))


def main() -> int:
    """Run the suites, and print how long each took; 1 if one failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Run suites of measurements.")
    parser.add_argument("suite", nargs="+", choices=SUITES, metavar="SUITE", help=", ".join(SUITES))
    arguments, options = sys.argv[1:], []
    if "--" in arguments:
        place = arguments.index("--")
        arguments, options = arguments[:place], arguments[place + 1 :]
    results = []
    for name in parser.parse_args(arguments).suite:
        started = time.monotonic()
        code = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *options], cwd=HERE.parent).returncode
        results.append((name, time.monotonic() - started, code))
    print("\nsuite         seconds")
    for name, seconds, code in results:
        print(f"{name:14}{seconds:7.0f}  {f'FAILED with {code}' if code else 'measured'}")
    return 1 if any(code for *_, code in results) else 0


if __name__ == "__main__":
    sys.exit(main())
