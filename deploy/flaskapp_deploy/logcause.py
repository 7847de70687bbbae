"""Why a process ended, out of its log: the exception of its last traceback, else its last line that says something."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

NOTHING = "it printed nothing"
TRACEBACK = "Traceback (most recent call last):"
FRAME = re.compile(r'\s*File "(?P<file>[^"]+)", line (?P<line>\d+)')
EXCEPTION = re.compile(r"(?P<type>[A-Za-z_][\w.]*)(?::\s?(?P<message>.*))?$")
AFTERWARDS = ("The above exception was the direct", "During handling of the above exception", "Exception ignored")
# How a process ends after what went wrong; gunicorn's master raises HaltServer when a worker did not start.
ENDINGS = {"HaltServer", "SystemExit", "KeyboardInterrupt", "CancelledError", "GeneratorExit"}
SYNTAX = {"SyntaxError", "IndentationError", "TabError"}
# Frames of Python and of packages: /deps is where the image has the latter.
LIBRARY = re.compile(r"^<|^/deps/|/(site|dist)-packages/|/lib(64)?/python\d|/python\d[.\d]*\.zip/")
GUNICORN = re.compile(r"\[\d{4}-\d\d-\d\d [^\]]+\] \[\d+\] \[[A-Z]+\] ")
# Where a log record begins, and so where the exception's message before it ends.
RECORD = re.compile(
    r"\[?\d{4}[-/]\d\d[-/]\d\d[T ]|(DEBUG|INFO|WARN|WARNING|ERROR|CRITICAL|FATAL)\b|\[(INFO|WARNING|ERROR)|[\d.]+ - "
)
# What servers say when they start, end or are asked; none of it says why.
ROUTINE = re.compile(
    r"Worker exiting \(pid|Worker \(pid:\d+\) (exited with code|was sent SIGTERM)|Handling signal: |"
    r"Shutting down: Master|Reason: (Worker failed to boot|App failed to load)|"
    r"Exception in worker process|Booting worker with pid|"
    r"gunicorn\.errors\.HaltServer: |"
    r"(Starting gunicorn|Listening at|Using worker|Control socket listening)|"
    r"INFO:\s+(Started|Finished|Waiting for|Shutting down|Application shutdown)|ERROR:\s+Application startup failed|"
    r'.*"(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) [^"]*" \d{3}\b|[-=~^ ]+$'
)
# Links that pydantic and SQLAlchemy add to a message.
ADVICE = ("For further information visit", "(Background on this error at")
# Lines after a traceback that make it an older one, which the process survived.
SURVIVED = 20
MESSAGE_LINES = 6
TROUBLE = re.compile(r"(?i)error|exception|fail|fatal|refused|denied|missing|invalid|not (set|found)|can(no|')t")
MESSAGES = ("message", "msg", "event")


@dataclass(frozen=True)
class Raised:
    """An exception as a traceback shows it, which takes these lines of the log."""

    kind: str
    text: str
    lines: range


def cause(log: str) -> str:
    """Return one line: `KeyError: 'SECRET_KEY' (/app/wsgi.py:3)`, or the last line that is no routine."""
    return exception(log) or last_line(log)


def trouble(log: str) -> str:
    """The same of a process that runs still: empty unless it is an exception, or a line about an error."""
    line = cause(log)
    return line if TROUBLE.search(line) else ""


def exception(log: str) -> str:
    """The exception of the traceback that a log ends with; empty where there is none."""
    lines = _plain(log)
    tracebacks = list(_tracebacks(lines))
    causes = [raised for raised in tracebacks if raised.kind.rpartition(".")[2] not in ENDINGS]
    if not causes:
        return ""
    inside = {number for raised in tracebacks for number in raised.lines}
    after = [line for number, line in enumerate(lines) if number >= causes[-1].lines.stop and number not in inside]
    later = [line for line in after if line.strip() and not _routine(line)]
    return causes[-1].text if len(later) <= SURVIVED else ""


def last_line(log: str) -> str:
    """The last line that says something; one of the server's routine where there is no other."""
    lines = [line.strip() for line in _plain(log) if line.strip()]
    fatal = [line for line in lines if line.startswith("Fatal Python error:")]
    telling = fatal or [line for line in lines if not _routine(line)] or lines
    return " ".join(GUNICORN.sub("", telling[-1]).split()) if telling else NOTHING


def _routine(line: str) -> bool:
    return ROUTINE.match(GUNICORN.sub("", line.strip())) is not None


def _tracebacks(lines: list[str]) -> Iterator[Raised]:
    """Every traceback that is whole, in the log's order."""
    for number, line in enumerate(lines):
        before, header, _ = line.partition(TRACEBACK)
        ignored = number and lines[number - 1].startswith(AFTERWARDS[-1])  # by Python, at its very end
        if header and not ignored:
            margin = before if not before.strip() else ""
            yield from _traceback([text.removeprefix(margin) for text in lines], number)


def _traceback(lines: list[str], start: int) -> Iterator[Raised]:
    frames = []
    for number in range(start + 1, len(lines)):
        line = lines[number]
        if frame := FRAME.match(line):
            frames.append((frame["file"], frame["line"]))
        elif line[:1].isspace() or not line or RECORD.match(line):  # a record of another thread may come between
            continue
        else:
            match = EXCEPTION.match(line)
            kind, first = (match["type"], match["message"] or "") if match else (line, "")
            more = list(_continued(lines[number + 1 :], first))
            text = " ".join(" ".join([line, *more]).split()) + _place(kind, frames)
            yield Raised(kind, text, range(start, number + len(more) + 1))
            return


def _continued(lines: list[str], first: str) -> Iterator[str]:
    """The further lines of an exception's message."""
    begun = bool(first.strip())
    for line in lines[:MESSAGE_LINES]:
        text = line.strip()
        # gunicorn prints the message once more below the traceback.
        repeated = first and (text == first or text.startswith(f"{first} ("))
        if (not text and begun) or repeated or line.startswith(AFTERWARDS) or TRACEBACK in line:
            return
        if RECORD.match(line) or (_routine(line) and text):
            return
        begun = begun or bool(text)
        if text and not text.startswith(ADVICE):
            yield text


def _place(kind: str, frames: list[tuple[str, str]]) -> str:
    """The application's own innermost line, in parentheses."""
    # The last frame of an error of syntax is the file that can't be read.
    own = [frame for frame in frames if kind in SYNTAX or not LIBRARY.search(frame[0])]
    return f" ({':'.join(own[-1])})" if own else ""


# --- logs of JSON ----------------------------------------------------------------------------------------------------


def _plain(log: str) -> list[str]:
    """The log's lines; those that are JSON as their message and traceback would be without it."""
    lines: list[str] = []
    for line in log.splitlines():
        record = _json(line)
        lines += _record(record) if record else [line.rstrip()]
    if any("Exception Group Traceback" in line for line in lines):  # the exceptions inside it are the cause
        lines = [re.sub(r"^\s+[|+] ?", "", line) for line in lines]
        lines = ["" if re.match(r"[-+]+( \d+ -+)?$", line) else line for line in lines]
    return lines


def _json(line: str) -> dict[str, Any]:
    with suppress(ValueError):
        record = json.loads(line) if line.lstrip().startswith("{") else {}
        return record if isinstance(record, dict) else {}
    return {}


def _record(record: dict[str, Any]) -> list[str]:
    message = next((str(record[name]) for name in MESSAGES if isinstance(record.get(name), str)), "")
    for text in _strings(record):
        if TRACEBACK in text:
            return [*([] if text == message else message.splitlines()), *text.splitlines()]
    if isinstance(record.get("error"), str) and isinstance(record.get("trace"), list):
        return _ledger(record["error"], record["trace"], message)
    for raised in _objects(record):
        kind = next((raised[name] for name in ("exc_type", "type", "class", "name") if name in raised), None)
        value = next((raised[name] for name in ("exc_value", "value", "message") if name in raised), None)
        if isinstance(kind, str) and value is not None:
            frames = [frame for frame in raised.get("frames") or [] if isinstance(frame, dict)]
            places = [f'  File "{frame.get("filename")}", line {frame.get("lineno")}' for frame in frames]
            return [message, TRACEBACK, *places, f"{kind}: {value}"]
    return message.splitlines() or [json.dumps(record)]


def _ledger(kind: str, trace: list[Any], message: str) -> list[str]:
    """The release ledger logs an exception's type and places, and keeps its text to itself (src/flaskapp/logs.py)."""
    places = [str(place).rpartition(" ")[0].rpartition(":") for place in trace]
    frames = [f'  File "{file}", line {line}' for file, _, line in places]
    return [TRACEBACK, *frames, kind if _routine(message) or not message else f"{kind}: {message}"]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


def _objects(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What a record keeps of an exception, as structlog, loguru and ECS name it."""
    for name in ("exception", "exc_info", "error", "record"):
        for item in record[name] if isinstance(record.get(name), list) else [record.get(name)]:
            if isinstance(item, dict):
                yield from _objects(item)
                yield item
