"""What strip.py cuts off a library: what debuggers read, and nothing that a loader does."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flaskapp_deploy.images import strip


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A copy of an extension module that was built with debug information."""
    spec = importlib.util.find_spec("markupsafe._speedups")
    assert spec
    assert spec.origin
    return Path(shutil.copy(spec.origin, tmp_path))


def test_debug_information_is_cut(library: Path) -> None:
    whole = library.read_bytes()
    assert b".debug_info\0" in whole
    strip.strip(library)
    assert b".debug_info\0" not in library.read_bytes()
    assert library.stat().st_size < len(whole) / 2
    code = f"import sys; sys.path.insert(0, {str(library.parent)!r}); import _speedups; print(_speedups.__file__)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == f"{library}\n", result.stderr


def test_a_library_is_cut_once(library: Path) -> None:
    strip.strip(library)
    cut = library.read_bytes()
    strip.strip(library)
    assert library.read_bytes() == cut


def test_other_files_stay_as_they_are(tmp_path: Path) -> None:
    for name in ("libc.so", "module.source.py"):
        (tmp_path / name).write_text("GROUP ( /lib/libc.so.6 )")
    (tmp_path / "link.so").symlink_to("absent")
    subprocess.run([sys.executable, strip.__file__, str(tmp_path)], check=True)
    assert {path.read_text() for path in tmp_path.iterdir() if not path.is_symlink()} == {"GROUP ( /lib/libc.so.6 )"}
