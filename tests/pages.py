"""The commands of a page in docs/, which tests run unchanged."""

import re
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def blocks(page: str, heading: str = "") -> list[str]:
    """The shell blocks of a page, or of the part of it under a heading."""
    text = (ROOT / "docs" / page).read_text()
    if heading:
        _, separator, text = text.partition(f"\n## {heading}\n")
        assert separator, f"docs/{page} has no heading {heading!r}"
        text = text.partition("\n## ")[0]
    return re.findall(r"^ *```sh\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)  # within lists, too


def run(script: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run commands in one shell, from the repository's folder, up to the first that fails."""
    command = ["bash", "-c", f"set -euxo pipefail\n{script}"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result
