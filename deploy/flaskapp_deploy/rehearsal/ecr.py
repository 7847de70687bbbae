"""The rules by which Amazon ECR differs from a plain registry, as a WSGI application in front of one.

Login, repositories that must exist, tags that can't be moved, referrers, and the errors that ECR answers with.
Everything else is the registry's own. State is in one folder, so that others can change it while this runs:
`repositories.json` ({name: [patterns of tags that may move]}), `tokens.json` ({token: time of its end}) and
`referrers/`, a file for each manifest that others refer to.
"""

import hashlib
import json
import re
import threading
import time
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any

import urllib3
from flask import Flask, Response, request

from flaskapp_deploy.images.oci import INDEX

ACCOUNT = "123456789012"
PATHS = re.compile(r"/v2/(?P<name>.+?)/(?P<kind>manifests|blobs|tags|referrers)/(?P<rest>.*)")
TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
# These belong to one connection, and the login to this registry.
NOT_PASSED = {"authorization", "connection", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}


class RefusalError(Exception):
    """An answer in the shape of the distribution specification's errors: status, code and message."""


def create_app(upstream: str, home: str) -> Flask:
    """ECR in front of the registry at `upstream` (`http://ADDRESS:PORT`), with its state in the folder `home`."""
    app, state = Flask(__name__), Path(home)
    pool = urllib3.connection_from_url(upstream, maxsize=16, timeout=60, retries=False)
    # A tag's check and its change must not be parted.
    tagging = threading.Lock()

    @app.errorhandler(RefusalError)
    def refused(error: RefusalError) -> Response:
        status, code, message = error.args
        body = json.dumps({"errors": [{"code": code, "message": message}]})
        return Response(body, status, content_type="application/json; charset=utf-8")

    @app.before_request
    def authenticate() -> Response | None:
        login = request.authorization
        tokens = _read(state / "tokens.json", {})
        if login is None or login.username != "AWS" or login.password not in tokens:
            challenge = f'Basic realm="https://{request.host}/",service="ecr.amazonaws.com"'
            return Response("Not Authorized", 401, {"WWW-Authenticate": challenge})
        if tokens[login.password] < time.time():
            raise RefusalError(403, "DENIED", "Your authorization token has expired. Reauthenticate and try again.")
        return None

    @app.get("/v2/")
    def supported() -> Response:
        return Response("", 200, {"Docker-Distribution-Api-Version": "registry/2.0"})

    @app.route("/v2/<path:_>", methods=["GET", "HEAD", "POST", "PATCH", "PUT", "DELETE"])
    def registry(_: str) -> Response:
        match = PATHS.fullmatch(request.path)
        if match is None:
            raise RefusalError(404, "UNSUPPORTED", "The operation is not supported by ECR's registry API.")
        name, kind, rest = match["name"], match["kind"], match["rest"]
        movable = _read(state / "repositories.json", {}).get(name)
        if movable is None:
            message = f"The repository with name '{name}' does not exist in the registry with id '{ACCOUNT}'"
            raise RefusalError(404, "NAME_UNKNOWN", message)
        if kind == "referrers":
            return _referrers(_referrers_path(state, name, rest))
        if request.method == "DELETE" and kind == "manifests":
            raise RefusalError(405, "UNSUPPORTED", "Images are deleted by ECR's own API.")
        if kind == "manifests" and ":" not in rest and not TAG.fullmatch(rest):
            raise RefusalError(400, "TAG_INVALID", f"Invalid parameter at 'imageTag': '{rest}' is not a tag")
        if request.method != "PUT" or kind != "manifests":
            return _forward(pool, request.stream)
        content = request.get_data()
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        with tagging:
            if ":" not in rest and not any(fnmatchcase(rest, pattern) for pattern in movable):
                headers = {"Accept": request.content_type or "*/*"}
                tagged = pool.request("HEAD", request.path, headers=headers).headers.get("Docker-Content-Digest")
                if tagged not in (None, digest):  # ImageTagAlreadyExistsException
                    where = f"The image tag '{rest}' already exists in the '{name}' repository"
                    message = f"{where} and cannot be overwritten because the tag is immutable."
                    raise RefusalError(400, "TAG_INVALID", message)
            answer = _forward(pool, content)
            manifest = json.loads(content) if answer.status_code == 201 else {}
            if subject := manifest.get("subject", {}).get("digest"):
                _refer(_referrers_path(state, name, subject), manifest, digest, len(content))
                answer.headers["OCI-Subject"] = subject
            return answer

    return app


def _refer(path: Path, manifest: Mapping[str, Any], digest: str, size: int) -> None:
    """Remember a manifest among those that refer to its subject."""
    described = {
        "mediaType": request.content_type,
        "digest": digest,
        "size": size,
        "artifactType": manifest.get("artifactType") or manifest.get("config", {}).get("mediaType", ""),
        "annotations": manifest.get("annotations", {}),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    others = [item for item in _read(path, []) if item["digest"] != digest]
    path.write_text(json.dumps([*others, described]))


def _referrers(path: Path) -> Response:
    """The index of what refers to a manifest, by the distribution specification's referrers API."""
    wanted = request.args.get("artifactType", "")
    manifests = [item for item in _read(path, []) if wanted in ("", item["artifactType"])]
    body = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests})
    return Response(body, content_type=INDEX, headers={"OCI-Filters-Applied": "artifactType"} if wanted else {})


def _referrers_path(state: Path, name: str, subject: str) -> Path:
    return state / "referrers" / name / f"{subject.partition(':')[2]}.json"


def _forward(pool: urllib3.HTTPConnectionPool, body: bytes | IO[bytes]) -> Response:
    """Ask the registry the same, passing bodies on as they come."""
    answer = pool.urlopen(
        request.method,
        request.full_path if request.query_string else request.path,
        body=body,
        headers=_passed(dict(request.headers)),
        redirect=False,
        preload_content=False,
        decode_content=False,
    )
    stream = answer.stream(2**20, decode_content=False) if request.method != "HEAD" else None
    return Response(stream, answer.status, _passed(answer.headers), direct_passthrough=True)


def _passed(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in NOT_PASSED}


def _read(path: Path, default: Any) -> Any:
    return json.loads(path.read_text()) if path.exists() else default
