"""Signatures and attestations in the registry, made and checked by cosign with one key.

COSIGN_KEY names the key: `awskms:///alias/…`, or a file whose password is in COSIGN_PASSWORD. The key alone is trusted
(docs/adr/0012): no transparency log, certificate or time authority takes part.
"""

import json
from base64 import b64decode
from pathlib import Path

from flaskapp_deploy import shell
from flaskapp_deploy.release import registryclient
from flaskapp_deploy.shell import DeployError

# They name no service, so cosign calls none.
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
    registryclient.run("cosign", "sign", "--yes", "--key", read_key(), *ALONE, reference)


def attest(reference: str, kind: str, predicate: Path) -> None:
    """Attach a signed in-toto statement about what a digest names; `kind` is PROVENANCE or SBOM."""
    options = ["--type", kind, "--predicate", str(predicate)]
    registryclient.run("cosign", "attest", "--yes", "--key", read_key(), *ALONE, *options, reference)


def verify(reference: str, public_key: str) -> None:
    """Fail (SignatureError) unless what a digest names is signed by the key."""
    _ask("verify", reference, public_key)


def read_statements(reference: str, kind: str, public_key: str) -> list[str]:
    """Return the predicates (JSON) of the attestations by the key that a digest carries; fail if there is none."""
    output = _ask("verify-attestation", reference, public_key, "--type", kind)
    envelopes = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return [json.dumps(json.loads(b64decode(envelope["payload"]))["predicate"]) for envelope in envelopes]


def write_public_key(folder: Path) -> str:
    """Write the key's public half into `folder`, and return the file's path."""
    target = str(folder / "cosign.pub")
    result = registryclient.run("cosign", "public-key", "--key", read_key(), "--outfile", target, check=False)
    if result.returncode:
        raise DeployError(f"COSIGN_KEY {read_key()} can't be used: {shell.reason(result)}")
    return target


def read_key() -> str:
    """Read the name of the key that signs."""
    return registryclient.read_setting("COSIGN_KEY", "what signs a release, awskms:///alias/NAME or a file")


def make_key(folder: Path, password: str) -> None:
    """Make cosign.key and cosign.pub in `folder`."""
    prefix = str(folder / "cosign")
    registryclient.run("cosign", "generate-key-pair", "--output-key-prefix", prefix, COSIGN_PASSWORD=password)


def _ask(command: str, reference: str, public_key: str, *options: str) -> str:
    line = [command, "--key", public_key, "--insecure-ignore-tlog", *options, reference]
    result = registryclient.run("cosign", *line, check=False)
    if result.returncode and any(words in result.stderr for words in UNSIGNED):
        what = "no attestation" if options else "no signature"
        raise SignatureError(f"{reference} carries {what} by {public_key}: {shell.reason(result)}")
    if result.returncode:
        raise registryclient.refusal(f"cosign {command}", result.stderr)
    return result.stdout
