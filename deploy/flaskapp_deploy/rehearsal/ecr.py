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
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import urllib3
from flask import Flask, Request, Response, request

from flaskapp_deploy.images.oci import INDEX

ACCOUNT = "123456789012"
PATHS = re.compile(r"/v2/(?P<name>.+?)/(?P<kind>manifests|blobs|tags|referrers)/(?P<rest>.*)")
TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
# These belong to one connection, so they end here.
CONNECTION_HEADERS = {"connection", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}


@dataclass(frozen=True)
class RefusalError(Exception):
    """An answer in the shape of the distribution specification's errors."""

    status: int
    code: str
    message: str

    def response(self) -> Response:
        """Make the answer."""
        body = json.dumps({"errors": [{"code": self.code, "message": self.message}]})
        return Response(body, self.status, content_type="application/json; charset=utf-8")


def create_app(upstream: str, home: str) -> Flask:
    """ECR in front of the registry at `upstream` (`http://ADDRESS:PORT`), with its state in the folder `home`."""
    app, state = Flask(__name__), Path(home)
    pool = urllib3.connection_from_url(upstream, maxsize=16, timeout=60, retries=False)
    # A tag's check and its change must not be parted.
    tagging = threading.Lock()

    @app.errorhandler(RefusalError)
    def refused(error: RefusalError) -> Response:
        return error.response()

    @app.before_request
    def authenticate() -> Response | None:
        login = request.authorization
        tokens = _read(state / "tokens.json")
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
        movable = _read(state / "repositories.json").get(name)
        if movable is None:
            message = f"The repository with name '{name}' does not exist in the registry with id '{ACCOUNT}'"
            raise RefusalError(404, "NAME_UNKNOWN", message)
        if kind == "referrers":
            return _referrers(state, name, rest, request.args.get("artifactType", ""))
        if request.method == "DELETE" and kind == "manifests":
            raise RefusalError(405, "UNSUPPORTED", "Images are deleted by ECR's own API.")
        if kind == "manifests" and ":" not in rest and not TAG.fullmatch(rest):
            raise RefusalError(400, "TAG_INVALID", f"Invalid parameter at 'imageTag': '{rest}' is not a tag")
        if request.method != "PUT" or kind != "manifests":
            return _forward(pool, request)
        with tagging:
            if ":" not in rest and not any(fnmatchcase(rest, pattern) for pattern in movable):
                _refuse_to_move(pool, request, name, rest)
            answer = _forward(pool, request)
            if answer.status_code == 201 and (subject := _refer(state, name, request)):
                answer.headers["OCI-Subject"] = subject
            return answer

    return app


def _refer(state: Path, name: str, put: Request) -> str:
    """Remember what a manifest with a subject refers to; return the subject's digest, or nothing."""
    manifest, content = put.get_json(force=True), put.get_data(cache=True)
    subject = str(manifest.get("subject", {}).get("digest", ""))
    if not subject:
        return ""
    described = {
        "mediaType": put.content_type,
        "digest": f"sha256:{hashlib.sha256(content).hexdigest()}",
        "size": len(content),
        "artifactType": manifest.get("artifactType") or manifest.get("config", {}).get("mediaType", ""),
        "annotations": manifest.get("annotations", {}),
    }
    path = _referrers_path(state, name, subject)
    path.parent.mkdir(parents=True, exist_ok=True)
    document = json.loads(path.read_text()) if path.exists() else []
    path.write_text(json.dumps([item for item in document if item["digest"] != described["digest"]] + [described]))
    return subject


def _referrers(state: Path, name: str, subject: str, artifact_type: str) -> Response:
    """The index of what refers to a manifest, by the distribution specification's referrers API."""
    path = _referrers_path(state, name, subject)
    document = json.loads(path.read_text()) if path.exists() else []
    manifests = [item for item in document if artifact_type in ("", item["artifactType"])]
    body = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests})
    return Response(body, content_type=INDEX, headers={"OCI-Filters-Applied": "artifactType"} if artifact_type else {})


def _referrers_path(state: Path, name: str, subject: str) -> Path:
    return state / "referrers" / name / f"{subject.partition(':')[2]}.json"


def _refuse_to_move(pool: urllib3.HTTPConnectionPool, put: Request, name: str, tag: str) -> None:
    """Raise what ECR calls ImageTagAlreadyExistsException, unless the tag already names just this manifest."""
    headers = {"Accept": put.content_type or "*/*"}
    tagged = pool.request("HEAD", put.path, headers=headers).headers.get("Docker-Content-Digest")
    # Reads the whole manifest: the registry gets the copy that werkzeug keeps.
    if tagged in (None, f"sha256:{hashlib.sha256(put.get_data(cache=True)).hexdigest()}"):
        return
    where = f"The image tag '{tag}' already exists in the '{name}' repository"
    raise RefusalError(400, "TAG_INVALID", f"{where} and cannot be overwritten because the tag is immutable.")


def _forward(pool: urllib3.HTTPConnectionPool, taken: Request) -> Response:
    """Ask the registry the same, passing bodies on as they come."""
    target = taken.full_path if taken.query_string else taken.path
    manifest = taken.method == "PUT" and "/manifests/" in taken.path
    answer = pool.urlopen(
        taken.method,
        target,
        body=taken.get_data(cache=True) if manifest else taken.stream,
        headers=_passed(dict(taken.headers)),
        redirect=False,
        preload_content=False,
        decode_content=False,
    )
    headers = _passed(answer.headers)
    body = answer.stream(2**20, decode_content=False) if taken.method != "HEAD" else None
    return Response(body, answer.status, headers, direct_passthrough=True)


def _passed(headers: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value for name, value in headers.items() if name.lower() not in {*CONNECTION_HEADERS, "authorization"}
    }


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))
