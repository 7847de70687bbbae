"""What is in an image, and what of it fails a build: pip-audit with a service that speaks OSV, and ECR's answers."""

import http.server
import json
import threading
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, ClassVar

import pytest

from flaskapp_deploy.release import build, sbom, scan, state
from flaskapp_deploy.release.scan import Finding
from flaskapp_deploy.shell import DeployError

TODAY = date(2026, 11, 25)
# The shape of https://api.osv.dev/v1/query, with an advisory that is public.
ADVISORY = {
    "id": "GHSA-h5c8-rqwp-cp95",
    "aliases": ["CVE-2024-22195"],
    "summary": "Jinja vulnerable to HTML attribute injection when passing user input as keys to xmlattr filter",
    "details": "",
    "modified": "2024-01-11T15:20:48Z",
    "affected": [
        {
            "package": {"name": "jinja2", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "3.1.3"}]}],
            "versions": ["3.1.2"],
        }
    ],
}
FINDING = Finding(("CVE-2024-22195", "GHSA-h5c8-rqwp-cp95"), "jinja2", "3.1.2", "fixed in 3.1.3")


class Osv(http.server.BaseHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(question["package"]["name"])
        vulnerable = question["package"]["name"] == "jinja2" and question["version"] == "3.1.2"
        body = json.dumps({"vulns": [ADVISORY]} if vulnerable else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def osv(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Osv]]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Osv) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("OSV_URL", f"http://127.0.0.1:{server.server_port}/v1/query")
        yield Osv
        server.shutdown()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where scan.json goes."""
    monkeypatch.setattr(state, "FOLDER", tmp_path)
    return tmp_path


def test_a_vulnerable_package_is_found(osv: type[Osv]) -> None:
    assert scan.ask({("jinja2", "3.1.2"), ("flask", "3.1.3")}) == ([FINDING], "")
    assert set(osv.asked) == {"jinja2", "flask"}


def test_a_version_that_is_fixed_passes(osv: type[Osv]) -> None:
    assert scan.ask({("jinja2", "3.1.6")}) == ([], "")


def test_no_answer_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSV_URL", "http://127.0.0.1:9/v1/query")
    findings, reason = scan.ask({("jinja2", "3.1.2")})
    assert findings == []
    assert "127.0.0.1" in reason


def test_what_was_found_fails_unless_it_is_allowed(folder: Path) -> None:
    with pytest.raises(DeployError, match=r"CVE-2024-22195 in jinja2 3\.1\.2 \(fixed in 3\.1\.3\): take a"):
        scan.conclude("scan", [FINDING], "", {})
    assert json.loads((folder / "scan.json").read_text())["scan"]["result"] == "failed"
    scanned = scan.conclude("scan", [FINDING], "", {"GHSA-h5c8-rqwp-cp95": "never called"})  # by any of its names
    assert scanned == "passed"
    assert json.loads((folder / "scan.json").read_text())["scan"]["result"] == "passed"


@pytest.mark.usefixtures("folder")
def test_unchecked_is_said_and_refused_on_aws(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scan.conclude("scan", [], "no route", {}) == "not checked"
    assert "NOT CHECKED for vulnerabilities: no route" in capsys.readouterr().err
    monkeypatch.setenv("REGISTRY", "123456789012.dkr.ecr.eu-central-1.amazonaws.com")
    with pytest.raises(DeployError, match="AWS releases nothing unchecked: no route"):
        scan.conclude("scan", [], "no route", {})


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ('id = "CVE-1"\nuntil = 2026-11-25\nreason = "x"', "CVE-1 was allowed until 2026-11-25"),
        ('id = "CVE-1"\nuntil = 2027-01-01', "CVE-1 needs id, until"),
        ('id = "CVE-1"\nreason = "x"', "CVE-1 needs id, until"),
        ('id = "CVE-1"\nuntil = "2027-01-01"\nreason = "x"', "CVE-1 needs id, until"),
        ('id = "CVE-1"\nuntil = 2027-01-01\nreason = "x"\nforever = true', "and nothing else"),
    ],
)
def test_allowances_end_and_have_reasons(tmp_path: Path, entry: str, message: str) -> None:
    (tmp_path / "allowed.toml").write_text(f"[[allowed]]\n{entry}\n")
    with pytest.raises(DeployError, match=message):
        scan.allowances(tmp_path / "allowed.toml", TODAY)


def test_the_repository_s_own_allowances() -> None:
    scan.allowances(scan.ALLOWED, date.min)


def test_severe_findings_of_both_kinds_of_ecr_scans() -> None:
    """As in https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_ImageScanFindings.html ."""
    attributes = [{"key": "package_name", "value": "zlib"}, {"key": "package_version", "value": "1:1.3"}]
    basic = [
        {"name": "CVE-2026-1", "severity": "CRITICAL", "attributes": attributes},
        {"name": "CVE-2026-2", "severity": "MEDIUM", "attributes": attributes},
    ]
    details = {"vulnerabilityId": "CVE-2026-3", "vulnerablePackages": [{"name": "perl", "version": "5.40"}]}
    enhanced = [
        {"severity": "HIGH", "status": "ACTIVE", "packageVulnerabilityDetails": details},
        {"severity": "HIGH", "status": "SUPPRESSED", "packageVulnerabilityDetails": details},
    ]
    findings = list(scan.severe({"findings": basic, "enhancedFindings": enhanced}))
    assert [str(finding) for finding in findings] == [
        "CVE-2026-1 in zlib 1:1.3 (CRITICAL)",
        "CVE-2026-3 in perl 5.40 (HIGH)",
    ]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"imageScanStatus": {"status": "COMPLETE"}, "imageScanFindings": {"findings": []}}, ""),
        ({"imageScanStatus": {"status": "FAILED", "description": "no such layer"}}, "no such layer"),
        ({"imageScanStatus": {"status": "PENDING"}}, "PENDING; is scan on push on"),
        (None, "AccessDenied"),
    ],
)
def test_ecr_s_scan_must_come_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any] | None, message: str
) -> None:
    line = f"echo '{json.dumps(answer)}'" if answer else "echo AccessDenied >&2; exit 254"
    (tmp_path / "aws").write_text(f"#!/bin/sh\n{line}\n")
    (tmp_path / "aws").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(scan, "SECONDS", 0)
    if not message:
        assert scan.ecr_findings("shop", "sha256:0") == {"findings": []}
    else:
        with pytest.raises(DeployError, match=message):
            scan.ecr_findings("shop", "sha256:0")


def test_an_sbom_lists_debian_and_python_packages(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text('ID=debian\nVERSION_ID="13"\n')
    dpkg = tmp_path / "var/lib/dpkg"
    dpkg.mkdir(parents=True)
    installed = (
        "Package: zlib1g\nStatus: install ok installed\nArchitecture: arm64\nVersion: 1:1.3\nDescription: x\n y: z\n"
    )
    gone = "Package: gone\nStatus: deinstall ok not-installed\nArchitecture: arm64\nVersion: 1\n"
    (dpkg / "status").write_text(f"{installed}\n{gone}")
    metadata = tmp_path / "deps/Typing_Extensions-4.16.dist-info/METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.4\nName: Typing_Extensions\nVersion: 4.16\nLicense-Expression: PSF-2.0\n")
    document = json.loads(sbom.document(tmp_path, "shop", "1.0.0", "sha256:0"))
    assert document["metadata"]["component"]["version"] == "1.0.0"
    purls = {item["purl"]: item.get("licenses") for item in document["components"]}
    assert purls == {
        "pkg:deb/debian/zlib1g@1:1.3?arch=arm64&distro=debian-13": None,
        "pkg:pypi/typing-extensions@4.16": [{"expression": "PSF-2.0"}],
    }


def test_sboms_are_named_as_their_format_is_found_by() -> None:
    assert [build.sbom(platform).name for platform in build.PLATFORMS] == [
        "linux-arm64.cdx.json",
        "linux-amd64.cdx.json",
    ]
