"""Why uv installed nothing, out of what it printed: the requirement and the reason, and on the next line what to do.

Written for the uv that the Dockerfile pins; `tests/deploy/images/uv` holds what it prints.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from flaskapp_deploy import logcause

QUOTED = re.compile(r"`([^`]+)`")
UPDATING = re.compile(r"\s+Updating (\S+)")
INTERPRETER = re.compile(r"Using CPython (\d+\.\d+)")
ARCHITECTURE = re.compile(r"architecture: (\w+)")
HASH = re.compile(r"\s+sha256:(\w+)$")
ERROR = re.compile(r"(?i)(?:^|[\s:])(?:fatal )?error(?:\[\w+\])?: ")
# What a build says after its own error.
ECHO = re.compile(r"(?i)error: (command|could not compile)")
LONGEST = 400


@dataclass
class Failure:
    """uv's last error: its headline and chain of causes, what a package's build printed, and uv's hint."""

    chain: list[str]
    output: list[str] = field(default_factory=list)
    hint: str = ""


def reason(lines: Sequence[str]) -> str:
    """Return what is wrong and what to do, in two lines; an error of the Dockerfile's own says both in one."""
    failure = _parse(lines)
    if failure is None:
        return ""
    (headline, *causes), last = failure.chain, failure.chain[-1]
    match = QUOTED.search(headline)
    requirement = match[1] if match else ""
    if "Git executable not found" in last:
        return (
            f"{requirement or _last(UPDATING, lines)}: the image build has no git\n"
            "  name a release of the package, or the URL of its .tar.gz or wheel"
        )
    if last.startswith("Hash mismatch for "):
        expected, *_, computed = [match[1] for line in failure.output if (match := HASH.match(line))]
        return (
            f"hash mismatch: {requirement} is not what the requirements name:"
            f" expected {expected[:12]}…, got {computed[:12]}…\n"
            "  write the hashes anew if you changed the version; otherwise find out who changed the package"
        )
    if address := next((text for text in failure.chain if text.startswith("Failed to fetch: ")), ""):
        return (
            f"the package index can't be reached: {address.removeprefix('Failed to fetch: ')}: {last}\n"
            "  check the network, and pip's settings on this machine: index, proxy, certificates"
        )
    if headline.startswith("Failed to build "):
        return _build(requirement, _why(failure), _last(INTERPRETER, lines), _last(ARCHITECTURE, lines))
    if headline.startswith("No solution found"):
        return f"no versions satisfy the requirements: {_short(' '.join(causes))}\n  correct these versions"
    remedy = failure.hint or ("correct the requirements" if causes or _last(ARCHITECTURE, lines) else "")
    return "\n  ".join([_short(": ".join(failure.chain)), *([remedy] if remedy else [])])


def _parse(lines: Sequence[str]) -> Failure | None:
    starts = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    if not starts:
        return None
    failure = Failure([lines[starts[-1]].removeprefix("error: ")])
    for line in lines[starts[-1] + 1 :]:
        if line.startswith("  cause: "):
            failure.chain.append(line.removeprefix("  cause: "))
        elif line.startswith("hint: "):
            failure.hint = line.removeprefix("hint: ")
        elif failure.output or not line.strip():  # behind an empty line
            failure.output.append(line.strip() and line.removeprefix("         "))
        elif failure.chain[1:] and line.startswith("  "):
            failure.chain[-1] += f" {line.strip()}"
    return failure


def _build(requirement: str, why: str, python: str, machine: str) -> str:
    """Explain a package that uv built itself: it has no wheel, or is named by a directory or URL."""
    if "@ " in requirement or "/" in requirement:
        return f"{requirement} can't be built: {why}\n  correct that, or name a release that has a wheel"
    where = f"Python {python}" + (f" on {machine}" if machine else "")
    return (
        f"{requirement} has no wheel for {where}, and building it from source failed: {why}\n"
        f"  name a version that has a wheel for Python {python}: the image build has no compilers or libraries"
    )


def _why(failure: Failure) -> str:
    """What a package's build says was wrong."""
    text = "\n".join(failure.output)
    errors = [line for line in failure.output if ERROR.search(line)]
    first = [line for line in errors if "fatal error" in line] + [line for line in errors if not ECHO.search(line)]
    if first:
        return _short(first[0])
    return _short(logcause.exception(text) or (errors or failure.chain)[-1])


def _last(pattern: "re.Pattern[str]", lines: Sequence[str]) -> str:
    matches = [match[1] for line in lines if (match := pattern.match(line))]
    return matches[-1] if matches else ""


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
