"""Hands each check's outcome to the page of evidence, which the end of the session writes."""

import pytest

from tests.machines import evidence

RUNS: dict[str, evidence.Run] = {}


@pytest.fixture(scope="session")
def runs() -> dict[str, evidence.Run]:
    """What is reported of each release."""
    return RUNS


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    check, release = evidence.check_of(report.nodeid)
    if release in RUNS:
        RUNS[release].add(report, check)


def pytest_sessionfinish() -> None:
    if RUNS:
        evidence.write(RUNS)
