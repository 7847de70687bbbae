"""How an artifact came to be, as SLSA says it: https://slsa.dev/spec/v1.1/provenance."""

import json
import os
from datetime import UTC, datetime

from flaskapp_deploy.release.state import Image, ReleaseState, Scan

# What builds: one buildspec in the repository. A name, not an address.
BUILD_TYPE = "urn:flaskapp:buildspec:1"
BY_HAND = "urn:flaskapp:by-hand"


def predicate(release: ReleaseState, image: Image, scan: Scan) -> str:
    """Return the predicate (JSON) about what a build made."""
    source = {"uri": f"git+{release.source}", "digest": {"gitCommit": release.commit}}
    bases = [
        {"name": base.reference, "digest": _split(base.digest), "annotations": {"platform": base.platform}}
        for base in image.bases
    ]
    document = {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"buildspec": "buildspec.yml", "version": release.version, "tag": release.tag},
            "internalParameters": {"vulnerabilities": scan.result},
            "resolvedDependencies": [source, *bases],
        },
        "runDetails": {"builder": {"id": _builder()}, "metadata": _run()},
    }
    return json.dumps(document, indent=2) + "\n"


def commit(predicate: str) -> str:
    """Return the commit that a predicate names."""
    return str(json.loads(predicate)["buildDefinition"]["resolvedDependencies"][0]["digest"]["gitCommit"])


def _builder() -> str:
    """The CodeBuild project's ARN."""
    arn = os.environ.get("CODEBUILD_BUILD_ARN", "")
    return arn.rpartition(":")[0].replace(":build/", ":project/") or BY_HAND


def _run() -> dict[str, str]:
    milliseconds = os.environ.get("CODEBUILD_START_TIME", "")
    started = datetime.fromtimestamp(int(milliseconds) / 1000, UTC) if milliseconds else datetime.now(UTC)
    return {
        "invocationId": os.environ.get("CODEBUILD_BUILD_ARN", BY_HAND),
        "startedOn": started.isoformat(timespec="seconds"),
    }


def _split(digest: str) -> dict[str, str]:
    algorithm, _, value = digest.partition(":")
    return {algorithm: value}
