"""Version 1 of the API."""

from flask_openapi3.openapi import OpenAPI

from flaskapp.api import deployments, dora, failures, services


def init_app(app: OpenAPI) -> None:
    """Register the API's blueprints."""
    for module in (deployments, failures, services, dora):
        app.register_api(module.api)
