"""Signatures and attestations, beside what they are about in the registry: made by cosign, with one key.

COSIGN_KEY names the key: `awskms:///alias/…`, or a file whose password is in COSIGN_PASSWORD. The key alone is trusted
(docs/adr/0012): no transparency log, certificate or time authority takes part.
"""

import json
import os
import subprocess
from base64 import b64decode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flaskapp_deploy import programs
from flaskapp_deploy.release import registryclient
from flaskapp_deploy.shell import DeployError

# They name no service, so none is asked.
ALONE = [
    f"--signing-config={Path(__file__).with_name('signing-config.json')}",
    f"--trusted-root={Path(__file__).with_name('trusted-root.json')}",
]
PROVENANCE, SBOM = "slsaprovenance1", "cyclonedx"
# What cosign says of something that carries nothing, or nothing by this key.
UNSIGNED = ("no signatures found", "no matching attestations", "none of the attestations matched")


class SignatureError(DeployError):
    """Something carries no signature or attestation by the key."""


def sign(reference: str) -> None:
    """Sign what a digest names."""
    _change("sign", "--key", key(), *ALONE, reference)


def attest(reference: str, kind: str, predicate: Path) -> None:
    """Attach a signed in-toto statement about what a digest names; `kind` is PROVENANCE or SBOM."""
    _change("attest", "--key", key(), *ALONE, "--type", kind, "--predicate", str(predicate), reference)


def verify(reference: str, public_key: str) -> None:
    """Fail unless what a digest names is signed by the key.

    Raises:
        SignatureError: it is not.
    """
    _ask("verify", reference, public_key)


def statements(reference: str, kind: str, public_key: str) -> list[dict[str, Any]]:
    """Predicates of the attestations by the key that a digest carries: at least one.

    Raises:
        SignatureError: there is none.
    """
    message = _ask("verify-attestation", reference, public_key, "--type", kind)
    envelopes = [json.loads(line) for line in message.splitlines() if line.startswith("{")]
    return [json.loads(b64decode(envelope["payload"]))["predicate"] for envelope in envelopes]


def public_key(folder: Path) -> str:
    """The key's public half, as a file in `folder`."""
    target = folder / "cosign.pub"
    done = _run(["public-key", "--key", key(), "--outfile", str(target)])
    if done.returncode:
        raise DeployError(f"COSIGN_KEY {key()} can't be used: {_last(done.stderr)}")
    return str(target)


def key() -> str:
    return registryclient.setting("COSIGN_KEY", "what signs a release, awskms:///alias/NAME or a file")


def make_key(folder: Path, password: str) -> None:
    """Make cosign.key and cosign.pub in `folder`."""
    done = _run(["generate-key-pair", "--output-key-prefix", str(folder / "cosign")], {"COSIGN_PASSWORD": password})
    if done.returncode:
        raise DeployError(f"cosign made no key: {_last(done.stderr)}")


def _change(*arguments: str) -> None:
    done = _run([*arguments, "--yes"])
    if done.returncode:
        raise registryclient.refusal(f"cosign {arguments[0]}", done.stderr)


def _ask(command: str, reference: str, public_key: str, *options: str) -> str:
    done = _run([command, "--key", public_key, "--insecure-ignore-tlog", *options, reference])
    if done.returncode and any(words in done.stderr for words in UNSIGNED):
        what = "no attestation" if options else "no signature"
        raise SignatureError(f"{reference} carries {what} by {public_key}: {_last(done.stderr)}")
    if done.returncode:
        raise registryclient.refusal(f"cosign {command}", done.stderr)
    return done.stdout


def _run(arguments: list[str], variables: Mapping[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    command = [str(programs.binaries(registryclient.GROUP) / "cosign"), *arguments]
    environment = os.environ | dict(variables or {})
    return subprocess.run(command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL)


def _last(said: str) -> str:
    lines = (
        [line for line in said.splitlines() if line.startswith("Error: ")] or said.strip().splitlines() or ["no word"]
    )
    return lines[-1].removeprefix("Error: ")
