"""Evaluate CloudWatch Logs' JSON filter patterns, as far as logs.yaml uses them.

The rules are those of https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html. It reads
`{ SELECTOR OPERATOR VALUE && … }` with the operators =, !=, <, <=, >, >=, IS TRUE, IS FALSE, IS NULL and NOT EXISTS;
||, parentheses, * in strings and regular expressions are refused, never guessed. A selector that selects nothing
matches only NOT EXISTS; a comparison of sizes needs a number on both sides; a line that is not a JSON object matches
nothing.
"""

import json
import operator
import re
from typing import Any

TERM = re.compile(
    r"""\s*\$(?P<path>(?:\.[A-Za-z0-9_-]+)+)\s*
    (?:(?P<state>IS\s+TRUE|IS\s+FALSE|IS\s+NULL|NOT\s+EXISTS)
      |(?P<comparison>>=|<=|!=|=|>|<)\s*(?:"(?P<string>[^"*%]*)"|(?P<number>-?\d+(?:\.\d+)?)))\s*""",
    re.VERBOSE,
)
SIZES = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
MISSING = object()


class PatternError(ValueError):
    """The pattern is wrong, or uses syntax that this evaluator doesn't support."""


def matches(pattern: str, line: str) -> bool:
    """Return whether a log line matches the pattern."""
    terms = parsed(pattern)
    try:
        event = json.loads(line)
    except ValueError:
        return False
    return isinstance(event, dict) and all(holds(term, event) for term in terms)


def selected(event: Any, path: str) -> Any:
    """Return the value at `.a.b`, or MISSING."""
    for key in path.lstrip("$").lstrip(".").split("."):
        if not isinstance(event, dict) or key not in event:
            return MISSING
        event = event[key]
    return event


def parsed(pattern: str) -> list[re.Match[str]]:
    stripped = pattern.strip()
    if not (stripped.startswith("{") and stripped.endswith("}")) or len(stripped) > 1024:
        raise PatternError(pattern)
    terms = [TERM.fullmatch(term) for term in stripped[1:-1].split("&&")]
    read = [term for term in terms if term]
    if len(read) != len(terms):
        raise PatternError(pattern)
    return read


def holds(term: re.Match[str], event: dict[str, Any]) -> bool:
    value = selected(event, term["path"])
    state = " ".join(term["state"].split()) if term["state"] else None
    if state == "NOT EXISTS":
        return value is MISSING
    if value is MISSING:
        return False
    if state:
        return value is {"IS TRUE": True, "IS FALSE": False, "IS NULL": None}[state]
    if term["comparison"] in SIZES:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and term["number"] is not None and SIZES[term["comparison"]](value, float(term["number"]))
    equal = value == (float(term["number"]) if term["number"] is not None else term["string"])
    return equal is (term["comparison"] == "=") and not isinstance(value, bool)
