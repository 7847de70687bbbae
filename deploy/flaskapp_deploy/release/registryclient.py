"""The programs that talk to a registry, and what registries refuse, in one line with the way out."""

import hashlib
import os
import re
import subprocess
from pathlib import Path

from flaskapp_deploy import programs, shell
from flaskapp_deploy.shell import DeployError

# What a registry says, and what to do about it.
REMEDIES = {
    r"NAME_UNKNOWN|repository with name .* does not exist|404 Not Found": "create it first: infra/ecr.yaml does",
    r"TAG_INVALID.*immutable|ImageTagAlreadyExists": "what was pushed stays; raise the version in Chart.yaml",
    r"\b401\b|UNAUTHORIZED|Not Authorized|no basic auth": "log in: the buildspec's line with get-login-password",
    r"expired|\b403\b|DENIED": "the login has ended, or may not do this: log in again, or see infra/codebuild.yaml",
    r"\b429\b|TOOMANYREQUESTS": "the registry limits requests: run it again in some minutes",
    r"\b5\d\d\b": "the registry has a problem: run it again in some minutes",
    r"refused|no such host|EOF|reset by peer|timeout|broken pipe|closed network": "the connection broke: run it again",
    r"decrypt|loading private key|awskms": "COSIGN_KEY and COSIGN_PASSWORD say what signs; see infra/codebuild.yaml",
    r"certificate": "SSL_CERT_FILE names the authorities to trust",
}


def on_aws() -> bool:
    """Whether REGISTRY is Amazon ECR: nothing unchecked is released there."""
    return os.environ.get("REGISTRY", "").endswith((".amazonaws.com", ".amazonaws.com.cn"))


def read_repository(name: str) -> str:
    """Read HOST/REPOSITORY, from REGISTRY and the variable `name`."""
    host = read_setting("REGISTRY", "HOST of the registry, ACCOUNT.dkr.ecr.REGION.amazonaws.com")
    return f"{host}/{read_setting(name, 'the repository, without its HOST')}"


def read_setting(name: str, what: str) -> str:
    """Read a variable that a release must have; `what` says what it is."""
    value = os.environ.get(name, "")
    if not value:
        raise DeployError(f"{name} is not set: {what} (infra/codebuild.yaml sets it)")
    return value


def run(name: str, *arguments: str, check: bool = True, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run crane, cosign or helm: the pinned one, an image for builds may bring another."""
    program = programs.binaries("chart" if name == "helm" else "pipeline") / name
    result = shell.run(program, *arguments, check=False, env=variables)
    if check and result.returncode:
        raise refusal(f"{name} {arguments[0]}", result.stderr)
    return result


def crane(*arguments: str) -> str:
    """Run crane and return what it printed."""
    return run("crane", *arguments).stdout.strip()


def find_digest(reference: str) -> str:
    """Look up `sha256:…` of what a tag or a digest names; empty where the repository has no such thing."""
    result = run("crane", "manifest", reference, check=False)  # only a GET shows whether the repository is missing
    if not result.returncode:
        return f"sha256:{hashlib.sha256(result.stdout.encode()).hexdigest()}"
    if "NAME_UNKNOWN" in result.stderr or not re.search(r"MANIFEST_UNKNOWN|404 Not Found", result.stderr):
        raise refusal("crane manifest", result.stderr)
    return ""


def push(layout: Path, reference: str) -> int:
    """Push an OCI layout with its index; return how many bytes of it the registry did not have."""
    stderr = run("crane", "push", "--index", str(layout), reference).stderr
    new = set(re.findall(r"pushed blob: sha256:([0-9a-f]{64})", stderr))
    return sum((layout / "blobs/sha256" / digest).stat().st_size for digest in new)


def refusal(what: str, stderr: str) -> DeployError:
    """Make the error for what a registry's client printed."""
    lines = [line for line in stderr.strip().splitlines() if line.strip()] or ["it printed nothing"]
    last = re.sub(r"^(\d{4}/\d\d/\d\d [\d:]+ )?(Error: )?|\?_state=[^\"]*", "", lines[-1])
    remedy = next((remedy for pattern, remedy in REMEDIES.items() if re.search(pattern, stderr, re.IGNORECASE)), "")
    return DeployError(f"{what} failed: {last}" + (f" — {remedy}" if remedy else ""))
