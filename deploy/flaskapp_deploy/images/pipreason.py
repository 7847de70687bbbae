"""Why pip installed nothing, out of what it printed: the requirement, the reason, and on the next line what to do.

Written for pip 24 to 26, whose messages differ; `tests/deploy/images/pip` holds what they print.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flaskapp_deploy import logcause

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
COLLECTING = re.compile(r"\s*(?:Collecting|Processing|Obtaining) (?P<what>.+?)(?: \(from .*)?$")
SOURCE = re.compile(r"\s*(?:Downloading|Using cached) \S+?\.(?:tar\.(?:gz|bz2|xz)|zip|tgz)\b")
NO_MATCH = re.compile(r"ERROR: No matching distribution found for (?P<what>[^;]+)")
OFFERED = re.compile(
    r"ERROR: Could not find a version that satisfies the requirement .*\(from versions: (?P<those>.*)\)"
)
IGNORED = re.compile(r"ERROR: Ignored the following versions that require a different python version: (?P<those>.*)")
DIFFERENT = re.compile(r"ERROR: Package '(?P<what>[^']+)' requires a different Python: \S+ not in '(?P<wanted>[^']+)'")
UNREACHED = re.compile(r"\s*WARNING: Retrying .* after connection broken by '(?P<why>.*)': ")
FAILED = re.compile(
    rf"\s*(?:ERROR: |error: )?Failed (?:building wheel for (?P<wheel>{NAME})|to build '(?P<what>{NAME})' when .*)"
)
BROKEN = re.compile(
    r"\s*error: (subprocess-exited-with-error|metadata-generation-failed|backend-unavailable|failed-wheel)|"
    r".*\bBackendUnavailable: "
)
# How pip marks what failed, and why.
CROSS, ARROW = "\N{MULTIPLICATION SIGN} ", "╰─> "
OUTPUT = re.compile(rf"\s*{ARROW}\[\d+ lines? of output\]")
ERROR = re.compile(r"(?i)(?:^|[\s:])(?:fatal )?error(?:\[\w+\])?: ")
# What a build says after its own error.
ECHO = re.compile(r"(?i)error: (command|subprocess-exited|metadata-generation|could not compile)")
# Below the place of a mistake.
MARKER = re.compile(r" [\^~]+(?= |$)")
SHOWN = 5  # versions
LONGEST = 300


@dataclass(frozen=True)
class Log:
    """pip's lines, and for which Python (`3.13`) and architecture (`arm64`) it looked."""

    lines: Sequence[str]
    python: str
    machine: str
    foreign: bool

    def find(self, pattern: "re.Pattern[str]") -> "re.Match[str] | None":
        """The last line that matches."""
        matches = (pattern.match(line) for line in reversed(self.lines))
        return next((match for match in matches if match), None)

    def after(self, start: str) -> list[str]:
        """The line that starts so, without that, and the indented lines below it; empty where there is none."""
        for number, line in enumerate(self.lines):
            if line.startswith(start):
                more = []
                for further in self.lines[number + 1 :]:
                    if not further.startswith(" "):
                        break
                    more.append(further.strip())
                return [line.removeprefix(start), *more]
        return []

    @property
    def collected(self) -> list[str]:
        """The requirements, in the order that pip took them; one that pip reads further comes more than once."""
        return [match["what"] for line in self.lines if (match := COLLECTING.match(line))]


def reason(lines: Sequence[str], python: str, machine: str, *, foreign: bool = False) -> str:
    """Return what is wrong and what to do, in two lines; empty where pip said nothing that is known.

    `foreign` is a build for another architecture than this machine's, which takes wheels alone.
    """
    log = Log([line.rstrip() for line in lines], python, machine, foreign)
    kinds: tuple[Callable[[Log], str], ...] = (
        _git,
        _different_python,
        _no_match,
        _hashes,
        _conflict,
        _source,
        _unreached,
        _other,
    )
    return next((text for kind in kinds if (text := kind(log))), "")


def _git(log: Log) -> str:
    if not log.find(re.compile(r"ERROR: Cannot find command '(git|hg|svn|bzr)'")):
        return ""
    what = log.collected[-1] if log.collected else "a requirement"
    return f"{what}: the image build has no git\n  name a release of the package, or the URL of its .tar.gz or wheel"


def _different_python(log: Log) -> str:
    if match := log.find(DIFFERENT):
        return _wants(match["what"], match["wanted"], log)
    wanted, ignored = log.find(NO_MATCH), log.find(IGNORED)
    if not wanted or not ignored:
        return ""
    versions = dict(re.findall(r"(\S+) Requires-Python ([^;]+)", ignored["those"]))
    pinned = wanted["what"].partition("==")[2].strip()
    if pinned in versions:
        return _wants(wanted["what"], versions[pinned].strip(), log)
    return ""


def _wants(what: str, wanted: str, log: Log) -> str:
    limits = ",".join(sorted(wanted.split(","), reverse=True))  # the lower one first
    return f"{what} needs Python {limits}, and the image has {log.python}\n  name a version for Python {log.python}"


def _no_match(log: Log) -> str:
    wanted, offered = log.find(NO_MATCH), log.find(OFFERED)
    if not wanted:
        return ""
    what = wanted["what"].strip()
    versions = [] if not offered or offered["those"] == "none" else offered["those"].split(", ")
    if not versions and log.find(UNREACHED):
        return _unreached(log)
    absent = (
        f"no wheel for Python {log.python} on {log.machine} found for"
        if log.foreign
        else "no matching distribution found for"
    )
    if not versions:
        return f"{absent} {what}: the package index has none\n  check the name, and the index that pip asks"
    shown = ", ".join([*(["…"] if len(versions) > SHOWN else []), *versions[-SHOWN:]])
    return f"{absent} {what}; there are {shown}\n  name one of these versions"


def _hashes(log: Log) -> str:
    if mismatch := log.after("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES"):
        what = [line.partition(" from ")[0] for line in mismatch[1:] if " from " in line]
        hashes = [line.split()[-1] for line in mismatch[1:] if line.startswith(("Expected ", "Got "))]
        got = f": expected {hashes[0][:12]}…, got {hashes[-1][:12]}…" if len(hashes) > 1 else ""
        return (
            f"hash mismatch: {', '.join(what) or 'a package'} is not what the requirements name{got}\n"
            "  write the hashes anew if you changed the version; otherwise find out who changed the package"
        )
    for start, wrong in (
        ("ERROR: In --require-hashes mode, all requirements must have their versions pinned", "not pinned with =="),
        ("ERROR: Hashes are required in --require-hashes mode", "without a hash"),
        ("ERROR: Can't verify hashes for these", "can't be verified by a hash"),
    ):
        if listed := log.after(start):
            what = [re.split(r" from | --hash| \(", line)[0] for line in listed[1:]]
            return (
                f"{', '.join(what)}: {wrong}, though other requirements have hashes\n"
                "  write requirements.lock with every package's version and hash (pip-compile --generate-hashes)"
            )
    return ""


def _conflict(log: Log) -> str:
    sides = log.after("The conflict is caused by:")[1:]
    if not sides:
        return ""
    return f"the requirements conflict: {'; '.join(sides)}\n  loosen one of these versions"


def _source(log: Log) -> str:
    """A package that pip builds itself: it has no wheel, or is named by a directory or URL."""
    failed = log.find(FAILED)
    if not failed and not log.find(BROKEN):
        return ""
    name = (failed["wheel"] or failed["what"]) if failed else ""
    what = _requirement(name, log)
    why = _why(log)
    if "@ " in what or "/" in what:
        return f"{what} can't be built: {why}\n  correct that, or name a release that has a wheel"
    if not _from_source(what, log):
        return f"{what or name or 'a requirement'} can't be built: {why}\n  name a version that has a wheel"
    return (
        f"{what} has no wheel for Python {log.python}, and building it from source failed: {why}\n"
        f"  name a version that has a wheel for Python {log.python}: the image build has no compilers or libraries"
    )


def _requirement(name: str, log: Log) -> str:
    """The requirement as the user wrote it; the last one that pip took where its name is not said."""
    for what in reversed(log.collected):
        taken = re.match(NAME, what)
        if not name or (taken and _plain(taken[0]) == _plain(name)):
            return what
    return name


def _from_source(what: str, log: Log) -> bool:
    """Whether pip took the package's source, as it does where no wheel fits."""
    taken = False
    for line in log.lines:
        if match := COLLECTING.match(line):
            taken = match["what"] == what
        elif taken and SOURCE.match(line):
            return True
    return False


def _why(log: Log) -> str:
    """What a package's build says, or the program that pip ran for it."""
    output = _output(log)
    if not output:
        messages = [
            line.strip().removeprefix(ARROW) for line in log.lines if line.startswith(("  fatal: ", f"  {ARROW}"))
        ]
        return _short(messages[0] if messages else logcause.exception("\n".join(log.lines)) or "pip does not say why")
    errors = [line for line in output if ERROR.search(line)]
    first = [line for line in errors if "fatal error" in line] + [line for line in errors if not ECHO.search(line)]
    text = "\n".join(output)
    return _short(first[0] if first else logcause.exception(text) or (errors or [logcause.last_line(text)])[0])


def _output(log: Log) -> list[str]:
    """The first output of a build that pip shows."""
    starts = [number for number, line in enumerate(log.lines) if OUTPUT.match(line)]
    output = []
    for line in log.lines[starts[0] + 1 :] if starts else []:
        if line.strip() == "[end of output]":
            break
        output.append(line.removeprefix("      "))
    return output


def _unreached(log: Log) -> str:
    failed = log.find(re.compile(f"{CROSS}(?P<what>Failed to connect to .*)"))
    retried = log.find(UNREACHED)
    if failed:
        why = log.find(re.compile(f"{ARROW}(?P<why>.*)"))
        text = failed["what"] + (f": {why['why']}" if why else "")
    elif retried:
        broken = re.search(r"\[Errno -?\d+\] [^'\")]+|certificate verify failed|timed out", retried["why"])
        text = f"the package index can't be reached: {broken[0] if broken else retried['why']}"
    else:
        return ""
    return f"{_short(text)}\n  check the network, and pip's settings on this machine: index, proxy, certificates"


def _other(log: Log) -> str:
    """pip's own error, with the lines that belong to it."""
    if "ERROR: Exception:" in log.lines and (message := logcause.exception("\n".join(log.lines))):
        return f"pip failed: {_short(message)}\n  correct the requirements, or try again"
    errors = [line for line in log.lines if line.startswith("ERROR: ")]
    if errors:
        text = " ".join([errors[0].removeprefix("ERROR: "), *log.after(errors[0])[1:]])
        hint = log.find(re.compile(r"[Hh]int: (?P<text>.*)"))
        what = _short(MARKER.sub("", text))
        return f"{what}\n  {hint['text'] if hint else 'correct the requirements'}"
    marked = [line for line in log.lines if line.startswith((CROSS, ARROW))]
    text = ": ".join(line.removeprefix(CROSS).removeprefix(ARROW) for line in marked)
    return f"{_short(text)}\n  correct the requirements" if marked else ""


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
