"""The release ledger: what runs where, since when, and was it safe."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flask import Flask

    from flaskapp.settings import Settings

__version__ = "0.2.0"


def create_app(settings: "Settings | None" = None) -> "Flask":
    """Create the Flask application, by default from the environment's settings.

    It opens no connection and starts no thread before its first request.

    Raises:
        SettingsError: A setting is missing or wrong.
    """
    import logging.config

    from flask_openapi3.models.info import Info
    from flask_openapi3.openapi import OpenAPI
    from werkzeug.middleware.proxy_fix import ProxyFix

    from flaskapp import api, authorization, database, faults, logs, observation, pages, probes, problems, reference
    from flaskapp.settings import Settings

    settings = settings or Settings.from_environment()
    logging.config.dictConfig(logs.configuration(settings.log_level))
    info = Info(title="flaskapp", version=__version__, description=__doc__)
    security: Any = {"token": {"type": "http", "scheme": "bearer", "description": authorization.__doc__}}
    app = OpenAPI(
        __name__,
        info=info,
        security_schemes=security,
        validation_error_model=problems.ProblemDetails,
        doc_ui=False,
        static_folder=None,
    )
    app.extensions["settings"] = settings
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body
    app.url_map.strict_slashes = False
    problems.init_app(app)
    database.init_app(app, settings)
    observation.init_app(app)
    faults.init_app(app, settings)
    api.init_app(app)
    app.register_blueprint(pages.pages)
    app.register_blueprint(reference.reference)
    app.config["TRUSTED_HOSTS"] = settings.trusted_hosts.split(",") if settings.trusted_hosts else None
    application: Any = app.wsgi_app
    if hops := settings.proxy_hops:
        application = ProxyFix(application, x_for=hops, x_proto=hops, x_host=hops, x_prefix=hops)
    app.wsgi_app = probes.Probes(application, app.extensions["watch"], settings.fault_unready)  # type: ignore[method-assign]
    return app
