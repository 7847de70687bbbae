"""What a build hands over: artifacts, copied, and reports, counted."""

import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flaskapp_deploy.shell import DeployError


class OutputError(DeployError):
    """Nothing matches; the message says what was looked for."""


def artifacts(source: Path, found: Mapping[str, Any], target: Path) -> list[Path]:
    """Copy what an `artifacts` block names into `target`; return the copies.

    Raises:
        OutputError: no file matches at all.
    """
    copies = []
    for base, path in _matching(source, found):
        name = path.name if _yes(found.get("discard-paths")) else path.relative_to(base)
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        copies.append(copy)
    if not copies:
        raise OutputError(f"no matching artifact paths found: {', '.join(found['files'])}")
    return copies


def report(source: Path, found: Mapping[str, Any]) -> str:
    """A line on a group of reports.

    Raises:
        OutputError: no file matches, or one isn't of the format.
    """
    files = [path for _, path in _matching(source, found)]
    if not files:
        raise OutputError(f"no matching report files found: {', '.join(found['files'])}")
    kind = str(found.get("file-format", "JUNITXML")).upper()
    try:
        roots = [ElementTree.parse(path).getroot() for path in files]  # noqa: S314 - the build's own files
    except ElementTree.ParseError as error:
        raise OutputError(f"{kind}: {error}") from error
    if kind == "JUNITXML":
        suites = [suite for root in roots for suite in root.iter("testsuite")]
        counted = {
            key: sum(int(suite.get(key, "0")) for suite in suites) for key in ("tests", "failures", "errors", "skipped")
        }
        return f"{len(files)} files, " + ", ".join(f"{count} {key}" for key, count in counted.items())
    if kind == "COBERTURAXML":
        return ", ".join(f"{float(root.get('line-rate', '0')):.1%} of the lines" for root in roots)
    return f"{len(files)} files"


def _matching(source: Path, found: Mapping[str, Any]) -> list[tuple[Path, Path]]:
    """(base directory, file) for what `files` match and `exclude-paths` don't."""
    matching = []
    directory = found.get("base-directory")
    for base in sorted(source.glob(directory)) if directory else [source]:
        left_out = set(_glob(base, found.get("exclude-paths", [])))
        matching += [(base, path) for path in dict.fromkeys(_glob(base, found["files"])) if path not in left_out]
    return matching


def _glob(base: Path, patterns: Iterable[str]) -> list[Path]:
    return [path for pattern in patterns for path in sorted(base.glob(pattern)) if path.is_file()]


def _yes(value: Any) -> bool:
    return value in ("yes", True)
