"""Unchanged Flask applications of other people: each installed by its values, queried, upgraded and removed."""

from collections.abc import Callable
from typing import Any

import pytest
import requests

from flaskapp_deploy.kubernetes import Cluster
from tests.kubernetes import ROOT
from tests.reliability.test_release import get, install, url, wait


class Example:
    """A release of an example, as its clients see it."""

    def __init__(self, name: str, cluster: Cluster, image: str) -> None:
        self.name, self.cluster, self.image = name, cluster, image
        self.labels = f"app.kubernetes.io/instance={name},app.kubernetes.io/component=web"

    def upgrade(self, *settings: str) -> None:
        values = str(ROOT / "examples" / self.name / "values.yaml")
        install(self.cluster, self.image, "-f", values, *settings, release=self.name)

    def change(self, setting: str) -> None:
        """Upgrade with a setting, and wait until every earlier pod is gone: a draining one may still answer."""
        before = self.pods()
        self.upgrade("--set", setting)
        wait(lambda: not before & self.pods(), 60, "the end of the pods from before")

    def pods(self) -> set[str]:
        return {pod["metadata"]["uid"] for pod in get(self.cluster, "pods", selector=self.labels)}

    def ask(self, method: str, path: str, **options: Any) -> requests.Response:
        return requests.request(method, url(self.cluster, self.name) + path, timeout=20, **options)

    def remove(self) -> None:
        self.cluster.helm("uninstall", self.name, "--wait", "--timeout=3m")
        wait(lambda: not self.pods(), 60, "the end of the pods")
        kinds = "services,deployments,statefulsets,jobs,configmaps"
        assert get(self.cluster, kinds, selector=f"app.kubernetes.io/instance={self.name}") == []


@pytest.fixture
def example(request: pytest.FixtureRequest, releaser: Callable[[str], Cluster], references: dict[str, str]) -> Example:
    """The example that the test is named after, installed."""
    name = request.node.name.removeprefix("test_")
    made = Example(name, releaser(f"example-{name}"), references[name])
    made.upgrade()
    return made


def test_httpbin(example: Example) -> None:
    def answer() -> int:
        return example.ask("GET", "/get", params={"long": 200 * "x"}).status_code

    echo = example.ask("POST", "/anything/path?b=1", json={"c": 2}).json()
    assert (echo["method"], echo["args"], echo["json"]) == ("POST", {"b": "1"}, {"c": 2})
    assert example.ask("GET", "/status/418").status_code == 418
    assert answer() == 200
    example.change("config.GUNICORN_CMD_ARGS=--limit-request-line 100")
    assert answer() == 414
    example.remove()


def test_ihatemoney(example: Example) -> None:
    project = {"name": "Trip", "id": "trip", "password": "s3cret", "contact_email": "ada@example.com"}
    created = example.ask("POST", "/api/projects", data=project | {"default_currency": "XXX"})
    assert (created.status_code, created.json()) == (201, "trip")
    members = "/api/projects/trip/members"
    added = example.ask("POST", members, data={"name": "Ada"}, auth=("trip", "s3cret"))
    assert added.status_code == 201
    example.change("config.SITE_NAME=Shared budgets")
    assert "<title>Shared budgets" in example.ask("GET", "/").text
    assert [member["name"] for member in example.ask("GET", members, auth=("trip", "s3cret")).json()] == ["Ada"]
    assert example.ask("GET", members, auth=("trip", "wrong")).status_code == 401
    example.remove()


def test_alerta(example: Example) -> None:
    user = {"name": "Ada", "email": "ada@example.com", "password": "correct horse", "text": ""}
    token = example.ask("POST", "/auth/signup", json=user).json()["token"]
    bearer = {"Authorization": f"Bearer {token}"}

    def report(environment: str) -> int:
        alert = {"resource": "web1", "event": "Down", "environment": environment, "service": ["shop"]}
        return example.ask("POST", "/alert", json=alert, headers=bearer).status_code

    assert example.ask("GET", "/alerts").status_code == 401
    # It connects when it is loaded, and has waited until that worked.
    [pod] = get(example.cluster, "pods", selector=example.labels)
    assert [status["restartCount"] for status in pod["status"]["containerStatuses"]] == [0]
    assert report("Production") == 201
    assert report("Staging") == 403
    example.change(r"config.ALLOWED_ENVIRONMENTS=Production\,Development\,Staging")
    # The earlier token is still valid, so the signing key was kept.
    assert report("Staging") == 201
    alerts = example.ask("GET", "/alerts", headers=bearer).json()["alerts"]
    assert {alert["environment"] for alert in alerts} == {"Production", "Staging"}
    example.remove()
