"""The OpenAPI document: the committed one is the generated one, and every answer conforms to it."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from click.testing import CliRunner
from flask import Flask
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from flaskapp import cli, transfer
from flaskapp.database import command_engine
from flaskapp.settings import Settings
from tests.postgres import Database
from tests.service.conftest import ADMIN

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"


@pytest.fixture(scope="module")
def ledger(
    template: Database, new_database: Callable[..., Database], make_app: Callable[[dict[str, str]], Flask]
) -> Flask:
    """A ledger with a month of deployments, which a fuzzer may change."""
    database = new_database(template.name)
    engine = command_engine(Settings.from_environment(database.environment))
    transfer.load(engine, transfer.sample(datetime.now(UTC)), print)
    return make_app({**database.environment, "API_ADMIN_TOKEN": ADMIN})


def test_committed_as_made(app: Any) -> None:
    """Run `make generate` after a change."""
    assert json.loads(DOCUMENT.read_text()) == json.loads(json.dumps(app.api_doc))


def test_command_prints_the_committed_document() -> None:
    printed = CliRunner().invoke(cli.cli, ["openapi"])
    assert (printed.exit_code, printed.stdout) == (0, DOCUMENT.read_text())


def test_every_operation_says_what_it_may_answer(app: Any) -> None:
    for path, operations in app.api_doc["paths"].items():
        for method, operation in operations.items():
            assert {"400", "401", "403", "422", "503"} <= set(operation["responses"]), (method, path)
            assert operation["summary"], (method, path)


OPERATIONS = [
    (path, method) for path, methods in json.loads(DOCUMENT.read_text())["paths"].items() for method in methods
]
# Checks that are skipped, each with its reason.
EXCLUDED = [
    # JSON Schema cannot say "not in the future", "not before started_at" or "every environment once".
    positive_data_acceptance,
]


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_no_answer_surprises(ledger: Flask, path: str, method: str) -> None:
    """No input leads to a 5xx, and the document describes every answer."""
    operation = schemathesis.openapi.from_wsgi("/api/openapi.json", ledger)[path][method]

    @settings(max_examples=30, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in GenerationMode)))
    def send(case: Any) -> None:
        case.call_and_validate(headers={"Authorization": f"Bearer {ADMIN}"}, excluded_checks=EXCLUDED)

    send()
