"""What a registry says about an image's tag, asked quickly: it may not be reachable from here."""

import re
from functools import cache

import requests

from flaskapp_deploy.images.oci import INDEX

SECONDS = 3
DOCKER = "application/vnd.docker.distribution.manifest"
MANIFESTS = f"{INDEX}, {DOCKER}.list.v2+json, application/vnd.oci.image.manifest.v1+json, {DOCKER}.v2+json"


@cache
def digest(reference: str) -> str | None:
    """The digest (`sha256:…`) that `HOST/REPOSITORY:TAG` stands for now; None where its registry doesn't answer."""
    host, _, rest = reference.partition("/")
    repository, _, tag = rest.rpartition(":")
    # Plain HTTP on this machine, as every client of registries has it.
    scheme = "http" if host.startswith(("localhost:", "127.")) else "https"
    address = f"{scheme}://{host}/v2/{repository}/manifests/{tag}"
    headers = {"Accept": MANIFESTS}
    try:
        answer = requests.head(address, headers=headers, timeout=SECONDS)
        if answer.status_code == 401:
            headers["Authorization"] = f"Bearer {_token(answer.headers['WWW-Authenticate'])}"
            answer = requests.head(address, headers=headers, timeout=SECONDS)
        answer.raise_for_status()
        return answer.headers["Docker-Content-Digest"]
    except (requests.RequestException, KeyError):
        return None


def _token(challenge: str) -> str:
    """A token for anonymous reading, from where the registry's challenge says (Docker Registry HTTP API v2)."""
    fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    answer = requests.get(fields.pop("realm"), params=fields, timeout=SECONDS)
    answer.raise_for_status()
    return str(answer.json()["token"])
