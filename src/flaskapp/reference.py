"""The API reference: the OpenAPI document, and Swagger UI from its own Python package."""

from pathlib import Path
from typing import Any

import flask_openapi3_swagger  # type: ignore[import-untyped]
from flask import Blueprint, Response, current_app, jsonify, render_template

from flaskapp.headers import protect

bundle = Path(flask_openapi3_swagger.__file__).parent / "templates" / "swagger"
reference = Blueprint("reference", __name__, static_folder=bundle, static_url_path="/api/swagger")
reference.after_request(protect)


@reference.get("/api/openapi.json")
def document() -> Response:
    """Return the OpenAPI document; docs/openapi.json is a copy."""
    app: Any = current_app
    return jsonify(app.api_doc)


@reference.get("/api")
def show() -> str:
    """Show Swagger UI."""
    return render_template("reference.html")
