"""Faults on purpose, to see how a release goes wrong: slow, failing, never ready. Production refuses them."""

import random
import time

from flask import Flask

from flaskapp.problems import ProblemError
from flaskapp.settings import Settings


def init_app(app: Flask, settings: Settings) -> None:
    if not settings.fault_delay and not settings.fault_error_rate:
        return

    @app.before_request
    def inject() -> None:
        time.sleep(settings.fault_delay)
        if random.random() < settings.fault_error_rate:  # noqa: S311 - chance, not a secret
            raise ProblemError(500, "This fault is injected: FAULT_ERROR_RATE is set.")
