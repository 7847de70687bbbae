"""Fault injection, to test how a bad release behaves: slow, failing or never ready. Refused in production."""

import random
import time

from flask import Flask

from flaskapp.problems import ProblemError
from flaskapp.settings import Settings


def init_app(app: Flask, settings: Settings) -> None:
    """Delay or fail requests as FAULT_DELAY and FAULT_ERROR_RATE say; add no hook if neither is set."""
    if not settings.fault_delay and not settings.fault_error_rate:
        return

    @app.before_request
    def inject() -> None:
        time.sleep(settings.fault_delay)
        if random.random() < settings.fault_error_rate:  # noqa: S311 - chance, not a secret
            raise ProblemError(500, "This fault is injected: FAULT_ERROR_RATE is set.")
