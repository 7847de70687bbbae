"""`make clean`: what goes, and what it says; tests/deploy/up/test_up.py removes applications."""

import subprocess
from pathlib import Path

import pytest

from flaskapp_deploy.cluster import localcluster
from flaskapp_deploy.up import recovery, removal


def test_the_caches_are_deleted_and_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("GOCACHE", str(tmp_path / "go-build"))
    cache = tmp_path / "cache/flaskapp"
    for name, size in (("tools/chart-1/helm", 300), ("venv-1/lib", 200), ("venv-2/lib", 200), ("go-build/a", 100)):
        (cache / name).parent.mkdir(parents=True)
        (cache / name).write_bytes(b"x" * size * 10**6)
    (cache / "traceback.log").write_text("x")
    (cache / "link").symlink_to(tmp_path)
    (tmp_path / "go-build").mkdir()
    removal.clean()
    output = capsys.readouterr().err
    assert output.startswith(f"deleted 0.8 GB in {cache}:\n  Python packages  0.4 GB\n  tools            0.3 GB\n")
    assert f"Go's own build cache stays, for other projects use it as well: {tmp_path}/go-build" in output
    assert list(cache.iterdir()) == []
    assert (tmp_path / "go-build").exists()
    assert localcluster.names() == []
    cache.rmdir()
    removal.clean()
    assert capsys.readouterr().err == f"there is no cache in {cache}\n"


def test_a_helm_that_is_at_work() -> None:
    words = ["helm", "-c", "read line", "upgrade", "nobodys"]
    with subprocess.Popen(words, executable="/bin/sh", stdin=subprocess.PIPE) as process:
        assert recovery.at_work("nobodys") == process.pid
        assert recovery.at_work("nobody") == 0
    assert recovery.at_work("nobodys") == 0
