"""How an artifact came to be, as SLSA says it: https://slsa.dev/spec/v1.1/provenance."""

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

# What builds: one buildspec in the repository. A name, not an address.
BUILD_TYPE = "urn:flaskapp:buildspec:1"
BY_HAND = "urn:flaskapp:by-hand"


def predicate(known: Mapping[str, Any]) -> dict[str, Any]:
    """The predicate about what a build makes.

    Args:
        known: release.json after `build` and `scan`.
    """
    source = {"uri": f"git+{known['source']}", "digest": {"gitCommit": known["commit"]}}
    bases = [
        {"name": base["reference"], "digest": _split(base["digest"]), "annotations": {"platform": base["platform"]}}
        for base in known["build"]["bases"]
    ]
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"buildspec": "buildspec.yml", "version": known["version"], "tag": known["tag"]},
            "internalParameters": {"vulnerabilities": known["scan"]["result"]},
            "resolvedDependencies": [source, *bases],
        },
        "runDetails": {"builder": {"id": _builder()}, "metadata": _run()},
    }


def commit(found: Mapping[str, Any]) -> str:
    """The commit that a predicate names."""
    return str(found["buildDefinition"]["resolvedDependencies"][0]["digest"]["gitCommit"])


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
