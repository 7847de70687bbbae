"""What is in the image, as an SBOM for each platform, and whether any of it is known to be vulnerable.

Python packages are looked up before the push, at OSV by pip-audit. The distribution's are looked at by ECR after it.
"""

import json
import os
import sys
import tempfile
import time
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from flaskapp_deploy import shell
from flaskapp_deploy.images.container import Container
from flaskapp_deploy.images.oci import Layout
from flaskapp_deploy.release import build, registryclient, sbom, state
from flaskapp_deploy.release.state import Scanned
from flaskapp_deploy.resources import PROJECT
from flaskapp_deploy.shell import DeployError, say

ALLOWED = PROJECT / "allowed-vulnerabilities.toml"
SEVERE = {"CRITICAL", "HIGH"}
# How long ECR may take to look at an image.
SECONDS, PAUSE = 300, 5


@dataclass(frozen=True)
class Finding:
    """One known vulnerability, under all its names."""

    names: tuple[str, ...]
    package: str
    version: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.names[0]} in {self.package} {self.version} ({self.remedy})"


def scan() -> None:
    """Leave an SBOM for each platform and scan.json in build/release, and refuse vulnerable Python packages."""
    release = state.load()
    name = state.require("build", release.build).repository.rpartition("/")[2]
    allowed = allowances(ALLOWED, datetime.now(UTC).date())
    packages: set[tuple[str, str]] = set()
    for platform, layout in build.layouts().items():
        packages |= inventory(name, release.version, platform, layout)
    findings, reason = ask(packages)
    state.save(replace(release, scan=conclude("scan", findings, reason, allowed)))


def scan_pushed() -> None:
    """Refuse the pushed images where ECR's scan on push found something severe in them, or came to no end."""
    pushed = state.require("push", state.load().image)
    allowed = allowances(ALLOWED, datetime.now(UTC).date())
    findings: list[Finding] = []
    reason = "the registry is not ECR, whose scan on push looks at the distribution's packages"
    if registryclient.on_aws():
        name, reason = pushed.repository.partition("/")[2], ""
        for digest in pushed.platforms.values():
            findings += severe(ecr_findings(name, digest))
    conclude("scan_pushed", findings, reason, allowed)


def conclude(key: str, findings: Collection[Finding], reason: str, allowed: Collection[str]) -> Scanned:
    """Write findings into scan.json under `key`, and say them; fail where one isn't allowed, or on AWS none is known.

    `reason` is why nothing could be looked up, `allowed` has the names of those that may pass.
    """
    failing = [finding for finding in findings if not set(finding.names) & set(allowed)]
    scanned: Scanned = "not checked" if reason else "passed"
    result = "failed" if failing else scanned
    path = state.FOLDER / "scan.json"
    content = json.loads(path.read_text()) if path.exists() else {}
    content[key] = {"result": result, "reason": reason, "findings": [asdict(finding) for finding in findings]}
    path.write_text(json.dumps(content, indent=2) + "\n")
    for finding in findings:
        say(f"{key}: {'FAILS' if finding in failing else 'allowed'}: {finding}")
    if failing:
        more = f" and {len(failing) - 1} more" if failing[1:] else ""
        raise DeployError(
            f"{failing[0]}{more}: take a version that fixes it, or allow it in {ALLOWED.name} with a reason and an end"
        )
    if reason and registryclient.on_aws():
        raise DeployError(f"vulnerabilities can't be looked up, and AWS releases nothing unchecked: {reason}")
    say(f"{key}: NOT CHECKED for vulnerabilities: {reason}" if reason else f"{key}: passed")
    return scanned


def inventory(name: str, version: str, platform: str, image: Layout) -> set[tuple[str, str]]:
    """Write the SBOM of a platform's image; return name and version of its Python packages."""
    with tempfile.TemporaryDirectory(prefix="flaskapp-scan-") as folder:
        text = sbom.document(Container(image, Path(folder) / "root").root, name, version, image.digest)
    target = build.sbom(platform)
    target.write_text(text)
    components = json.loads(text)["components"]
    say(f"{platform}: {len(components)} packages are listed in {target.name}")
    return {(item["name"], item["version"]) for item in components if item["purl"].startswith("pkg:pypi/")}


def ask(packages: Collection[tuple[str, str]]) -> tuple[list[Finding], str]:
    """Return what OSV knows about these Python packages, or why it did not answer.

    OSV_URL is another address of its API, for networks that mirror it.
    """
    options = ["--no-deps", "--disable-pip", "--vulnerability-service=osv", "--format=json", "--progress-spinner=off"]
    if url := os.environ.get("OSV_URL"):
        options.append(f"--osv-url={url}")
    requirements = "".join(f"{name}=={version}\n" for name, version in sorted(packages))
    command = [sys.executable, "-m", "pip_audit", "--requirement=/dev/stdin", *options]
    result = shell.run(*command, check=False, stdin=requirements)
    try:
        report = json.loads(result.stdout)["dependencies"]
    except (json.JSONDecodeError, KeyError):
        return [], shell.reason(result)[:300]
    skipped = [item["skip_reason"] for item in report if "skip_reason" in item]
    if skipped or len(report) < len(packages):
        return [], str(skipped[0] if skipped else "pip-audit left packages out")
    findings = []
    for item in report:
        for one in item["vulns"]:  # each counts, whatever its score
            remedy = f"fixed in {', '.join(one['fix_versions'])}" if one["fix_versions"] else "not fixed yet"
            findings.append(Finding((one["id"], *one["aliases"]), item["name"], item["version"], remedy))
    return findings, ""


def ecr_findings(repository: str, digest: str) -> dict[str, Any]:
    """Return what ECR's scan of an image says, once it has come to its end."""
    command = ["aws", "ecr", "describe-image-scan-findings", "--repository-name", repository]
    command += ["--image-id", f"imageDigest={digest}", "--output", "json"]
    deadline = time.monotonic() + SECONDS
    while True:
        result = shell.run(*command, check=False)
        answer = json.loads(result.stdout) if result.returncode == 0 else {}
        status = answer.get("imageScanStatus", {}).get("status", "")
        if status in {"COMPLETE", "ACTIVE"}:
            return dict(answer.get("imageScanFindings", {}))
        waiting = status in {"PENDING", "IN_PROGRESS"} or "ScanNotFoundException" in result.stderr
        if not waiting or time.monotonic() > deadline:
            message = answer.get("imageScanStatus", {}).get("description") or result.stderr.strip() or status
            raise DeployError(
                f"ECR did not scan {repository}@{digest}: {message}; is scan on push on (infra/ecr.yaml)?"
            )
        time.sleep(PAUSE)


def severe(answer: Mapping[str, Any]) -> Iterator[Finding]:
    """High and critical findings of ECR's basic scan and of Inspector's."""
    for one in answer.get("findings", []):
        if one["severity"] in SEVERE:
            about = {item["key"]: item["value"] for item in one.get("attributes", [])}
            package, version = about.get("package_name", ""), about.get("package_version", "")
            yield Finding((one["name"],), package, version, one["severity"])
    for one in answer.get("enhancedFindings", []):
        if one["severity"] in SEVERE and one.get("status") == "ACTIVE":
            details = one["packageVulnerabilityDetails"]
            package = (details.get("vulnerablePackages") or [{}])[0]
            names = (details["vulnerabilityId"], *details.get("relatedVulnerabilities", []))
            yield Finding(names, package.get("name", ""), package.get("version", ""), one["severity"])


def allowances(path: Path, today: date) -> list[str]:
    """Names of the vulnerabilities that may pass; refuse an entry that lacks its reason or its end, or has ended."""
    allowed = []
    for entry in tomllib.loads(path.read_text()).get("allowed", []):
        name, until, reason = entry.get("id", "an entry without id"), entry.get("until"), entry.get("reason")
        if not reason or not isinstance(until, date) or set(entry) != {"id", "until", "reason"}:
            raise DeployError(f"{path.name}: {name} needs id, until (a date) and reason, and nothing else")
        if until <= today:
            raise DeployError(f"{path.name}: {name} was allowed until {until}: look at it again")
        allowed.append(name)
    return allowed
