"""Downloads from a real HTTP server on this machine, by pins of the test's own; the rest is compiled by real Go."""

import hashlib
import io
import json
import platform
import socket
import tarfile
import time
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from deploy import checksums
from flaskapp_deploy import programs, shell
from flaskapp_deploy.programs import downloads
from flaskapp_deploy.shell import DeployError

ARCHITECTURE = downloads.ARCHITECTURES[platform.machine()]
DOWNLOADED = b"#!/bin/sh\necho downloaded\n"


class Mirror(ThreadingHTTPServer):
    """Serves a folder as a mirror does: a folder by host. The first `broken` downloads end in the middle."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.broken = 0
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(SimpleHTTPRequestHandler):
    server: Mirror

    def __init__(self, request: Any, client: Any, server: Mirror) -> None:
        super().__init__(request, client, server, directory=str(server.folder))

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if not self.server.broken:
            return super().do_GET()
        self.server.broken -= 1
        content = Path(self.translate_path(self.path)).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])
        self.close_connection = True
        return None

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """A mirror that has example.com/tool-1.2.3-ARCHITECTURE, its pins, and a group `own` that wants it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("GOCACHE", str(tmp_path.parent / "go-build"))
    monkeypatch.setattr(programs, "ROOT", tmp_path / "tools")
    group = tmp_path / "tools/own"
    (group / "tool").mkdir(parents=True)
    (group / "tool/main.go").write_text('package main\nfunc main() { print("compiled") }\n')
    (group / "go.mod").write_text("module own\n\ngo 1.21\n\ntool example.com/tool\n\nrequire example.com/tool v1.2.3\n")
    with Mirror(tmp_path / "mirror") as server:
        publish(server, f"example.com/tool-1.2.3-{ARCHITECTURE}", DOWNLOADED)
        monkeypatch.setenv("FLASKAPP_DOWNLOADS", server.address)
        monkeypatch.setenv("FLASKAPP_PINS", str(tmp_path / "pins.json"))
        write_pins(tmp_path / "pins.json", DOWNLOADED)
        downloads.network_answers.cache_clear()
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield server
        server.shutdown()
    downloads.network_answers.cache_clear()


def publish(mirror: Mirror, path: str, content: bytes) -> None:
    file = mirror.folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def write_pins(path: Path, content: bytes, algorithm: str = "sha256", **more: str) -> None:
    checksum = hashlib.new(algorithm, content).hexdigest()
    url = "https://example.com/tool-{version}-{arch}"
    entry = {"url": url, "published": f"{url}.sum", "checksums": {"1.2.3": {ARCHITECTURE: checksum}}} | more
    path.write_text(json.dumps({"tool": entry}))


def output() -> str:
    result = shell.run(programs.binaries("own") / "tool")
    return (result.stdout + result.stderr).strip()


def left_behind() -> list[str]:
    names = {path.name for path in (shell.cache() / "tools").glob("own-*/*")}
    return sorted(names - {"tool", "complete"})


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_program_is_downloaded(mirror: Mirror, tmp_path: Path, algorithm: str) -> None:
    write_pins(tmp_path / "pins.json", DOWNLOADED, algorithm)
    assert output() == "downloaded"
    assert mirror.asked == [f"/example.com/tool-1.2.3-{ARCHITECTURE}"]
    assert left_behind() == []


def test_no_go_is_needed_for_downloads(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/bin")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert output() == "downloaded"


def test_a_program_comes_out_of_its_archive(mirror: Mirror, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in {"linux/README": b"", f"linux-{ARCHITECTURE}/tool": DOWNLOADED}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    publish(mirror, f"example.com/tool-1.2.3-{ARCHITECTURE}", packed.getvalue())
    write_pins(tmp_path / "pins.json", packed.getvalue(), member="linux-{arch}/tool")
    assert output() == "downloaded"
    assert left_behind() == []


def test_a_wrong_checksum_is_refused(mirror: Mirror) -> None:
    publish(mirror, f"example.com/tool-1.2.3-{ARCHITECTURE}", b"#!/bin/sh\necho wrong\n")
    wrong = hashlib.sha256(b"#!/bin/sh\necho wrong\n").hexdigest()[:16]
    right = hashlib.sha256(DOWNLOADED).hexdigest()[:16]
    with pytest.raises(DeployError) as refused:
        programs.binaries("own")
    assert refused.value.message == (
        f"tool 1.2.3 from {mirror.address}/example.com/tool-1.2.3-{ARCHITECTURE} has the checksum {wrong}… instead of"
        f" {right}…\n  use another network or mirror; FLASKAPP_DOWNLOADS=off compiles it"
    )
    assert [path.name for path in (shell.cache() / "tools").glob("own-*/*")] == []


def test_a_download_that_breaks_off_is_repeated(mirror: Mirror) -> None:
    mirror.broken = 2
    assert output() == "downloaded"
    assert len(mirror.asked) == 3
    assert left_behind() == []


def test_a_download_that_always_breaks_off_is_compiled(mirror: Mirror, capfd: pytest.CaptureFixture[str]) -> None:
    mirror.broken = 100
    assert output() == "compiled"
    assert left_behind() == []
    assert f"tool-1.2.3-{ARCHITECTURE} can't be downloaded, and is compiled: " in capfd.readouterr().err


def test_what_a_mirror_does_not_have_is_compiled(mirror: Mirror, capfd: pytest.CaptureFixture[str]) -> None:
    (mirror.folder / f"example.com/tool-1.2.3-{ARCHITECTURE}").unlink()
    assert output() == "compiled"
    assert "404" in capfd.readouterr().err


def test_a_version_without_a_checksum_is_compiled(mirror: Mirror, tmp_path: Path) -> None:
    pins = json.loads((tmp_path / "pins.json").read_text())
    pins["tool"]["checksums"] = {"1.2.2": pins["tool"]["checksums"]["1.2.3"]}
    (tmp_path / "pins.json").write_text(json.dumps(pins))
    assert output() == "compiled"
    assert mirror.asked == []


def test_downloads_can_be_switched_off(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASKAPP_DOWNLOADS", "off")
    assert output() == "compiled"
    assert mirror.asked == []


def test_a_silent_network_costs_three_seconds_once(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A server that takes connections and never answers stands for a firewall that drops packets."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("FLASKAPP_DOWNLOADS", address)
        started = time.monotonic()
        assert not downloads.fetch("tool", "1.2.3", tmp_path / "target")
        assert time.monotonic() - started < 3.5
        started = time.monotonic()
        assert not downloads.fetch("tool", "1.2.3", tmp_path / "target")
        assert time.monotonic() - started < 0.5
    assert capfd.readouterr().err == f"{address} does not answer: programs are compiled instead of downloaded\n"
    assert output() == "compiled"


def test_checksums_come_from_the_projects_own_lists(mirror: Mirror, tmp_path: Path) -> None:
    other = next(name for name in downloads.ARCHITECTURES.values() if name != ARCHITECTURE)
    publish(mirror, f"example.com/tool-1.2.3-{ARCHITECTURE}.sum", f"{'a' * 64}\n".encode())
    listed = f"{'b' * 64}  tool-1.2.3-s390x\n{'c' * 128} *tool-1.2.3-{other}\n"
    publish(mirror, f"example.com/tool-1.2.3-{other}.sum", listed.encode())
    checksums.main()
    expected = {"1.2.3": {ARCHITECTURE: "a" * 64, other: "c" * 128}}
    assert json.loads((tmp_path / "pins.json").read_text())["tool"]["checksums"] == expected

    publish(mirror, f"example.com/tool-1.2.3-{other}.sum", b"<html>\n")
    with pytest.raises(DeployError, match=r"tool-1\.2\.3-\w+\.sum has no checksum of .*tool-1\.2\.3-\w+: 200 OK"):
        checksums.main()


def test_the_pins_name_programs_that_there_are() -> None:
    versions: dict[str, set[str]] = {}
    for group in programs.groups():
        for tool in programs.tools_of(group):
            versions.setdefault(tool.name, set()).add(tool.version)
    for name, entry in json.loads(downloads.PINS.read_text()).items():
        assert name in versions
        assert set(entry["checksums"]) <= versions[name], "write them again: deploy/checksums.py"
        assert entry.keys() <= {"url", "published", "member", "checksums"}
