"""The API, version 1."""

from flask_openapi3.openapi import OpenAPI

from flaskapp.api import deployments, services


def init_app(app: OpenAPI) -> None:
    for module in (deployments, services):
        app.register_api(module.api)
