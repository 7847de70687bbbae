"""crane, told where the login is; what registries refuse, in one line with the way out."""

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from flaskapp_deploy import programs
from flaskapp_deploy.shell import DeployError

GROUP = "pipeline"
# What a registry says, and what to do about it.
REMEDIES = {
    r"NAME_UNKNOWN|repository with name .* does not exist|404 Not Found": "create it first: infra/ecr.yaml does",
    r"TAG_INVALID.*immutable|ImageTagAlreadyExists": "what was pushed stays; raise the version in Chart.yaml",
    r"\b401\b|UNAUTHORIZED|Not Authorized|no basic auth": "log in: the buildspec's line with get-login-password",
    r"expired|\b403\b|DENIED": "the login has ended, or may not do this: log in again, or see infra/codebuild.yaml",
    r"\b429\b|TOOMANYREQUESTS": "the registry limits requests: run it again in some minutes",
    r"\b5\d\d\b": "the registry has a problem: run it again in some minutes",
    r"refused|no such host|EOF|reset by peer|timeout|broken pipe|closed network": "the line broke: run it again",
    r"decrypt|loading private key|awskms": "COSIGN_KEY and COSIGN_PASSWORD say what signs; see infra/codebuild.yaml",
    r"certificate": "SSL_CERT_FILE names the authorities to trust",
}


def registry() -> str:
    """HOST of the registry, from REGISTRY."""
    return setting("REGISTRY", "HOST of the registry, ACCOUNT.dkr.ecr.REGION.amazonaws.com")


def repository(name: str) -> str:
    """HOST/REPOSITORY, the repository from the variable `name`."""
    return f"{registry()}/{setting(name, 'the repository, without its HOST')}"


def setting(name: str, what: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise DeployError(f"{name} is not set: {what} (infra/codebuild.yaml sets it)")
    return value


def crane(*arguments: str) -> str:
    """Run crane and return what it printed.

    Raises:
        DeployError: it failed; the message says why and what to do.
    """
    return _succeed(arguments).stdout.strip()


def digest(reference: str) -> str:
    """`sha256:…` of what a tag or a digest names; empty where the repository has no such thing."""
    result = run(["digest", reference])
    if (
        result.returncode
        and re.search(r"MANIFEST_UNKNOWN|404 Not Found", result.stderr)
        and "NAME_UNKNOWN" not in result.stderr
    ):
        # A HEAD's answer has no body, so a GET tells whether it is the repository that is missing.
        got = run(["manifest", reference])
        if got.returncode and "NAME_UNKNOWN" in got.stderr:
            raise refusal("crane manifest", got.stderr)
        return ""
    if result.returncode:
        raise refusal("crane digest", result.stderr)
    return result.stdout.strip()


def push(layout: Path, reference: str) -> int:
    """Push an OCI layout under a reference; return how many bytes of it the registry did not have."""
    stderr = _succeed(["push", str(layout), reference]).stderr
    new = set(re.findall(r"pushed blob: sha256:([0-9a-f]{64})", stderr))
    return sum((layout / "blobs/sha256" / digest).stat().st_size for digest in new)


def moved(tagged: str) -> DeployError:
    """The error for a tag that names something else already."""
    return DeployError(f"{tagged} names another image, and tags are immutable: raise the version in Chart.yaml")


def _succeed(arguments: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    result = run(arguments)
    if result.returncode:
        raise refusal(f"crane {arguments[0]}", result.stderr)
    return result


def run(arguments: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    command = [str(programs.binaries(GROUP) / "crane"), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def refusal(what: str, said: str) -> DeployError:
    """The error for what a registry's client said."""
    lines = [line for line in said.strip().splitlines() if line.strip()] or ["no word"]
    last = re.sub(r"^(\d{4}/\d\d/\d\d [\d:]+ )?(Error: )?|\?_state=[^\"]*", "", lines[-1])
    remedy = next((remedy for pattern, remedy in REMEDIES.items() if re.search(pattern, said, re.IGNORECASE)), "")
    return DeployError(f"{what} failed: {last}" + (f" — {remedy}" if remedy else ""))
