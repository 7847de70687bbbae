"""How an artifact came to be, as SLSA says it: https://slsa.dev/spec/v1.1/provenance."""

import json
import os
from datetime import UTC, datetime

from flaskapp_deploy.release.state import Image, ReleaseState

# What builds: one buildspec in the repository. A name, not an address.
BUILD_TYPE = "urn:flaskapp:buildspec:1"
BY_HAND = "urn:flaskapp:by-hand"


def predicate(release: ReleaseState, image: Image, scanned: str) -> str:
    """Return the predicate (JSON) about what a build made."""
    source = {"uri": f"git+{release.source}", "digest": {"gitCommit": release.commit}}
    bases = [
        {
            "name": base.reference,
            "digest": {"sha256": base.digest.removeprefix("sha256:")},
            "annotations": {"platform": base.platform},
        }
        for base in image.bases
    ]
    arn = os.environ.get("CODEBUILD_BUILD_ARN", "")
    project = arn.rpartition(":")[0].replace(":build/", ":project/")
    milliseconds = os.environ.get("CODEBUILD_START_TIME", "")
    started = datetime.fromtimestamp(int(milliseconds) / 1000, UTC) if milliseconds else datetime.now(UTC)
    document = {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"buildspec": "buildspec.yml", "version": release.version, "tag": release.tag},
            "internalParameters": {"vulnerabilities": scanned},
            "resolvedDependencies": [source, *bases],
        },
        "runDetails": {
            "builder": {"id": project or BY_HAND},
            "metadata": {"invocationId": arn or BY_HAND, "startedOn": started.isoformat(timespec="seconds")},
        },
    }
    return json.dumps(document, indent=2) + "\n"


def commit(predicate: str) -> str:
    """Return the commit that a predicate names."""
    return str(json.loads(predicate)["buildDefinition"]["resolvedDependencies"][0]["digest"]["gitCommit"])
