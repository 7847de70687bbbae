"""The pages in a real browser: content, no requests to other hosts, accessibility."""

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from flask.testing import FlaskClient
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright
from sqlalchemy import Connection, text

from flaskapp import transfer
from flaskapp.database import command_engine
from flaskapp.settings import Settings
from tests.postgres import Database
from tests.service.conftest import ADMIN, Server

PATHS = ["/", "/services/checkout", "/diff", "/dora", "/dora?environment=production&service=checkout&tz=Asia/Tokyo"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium")
    assert program, "install Debian's chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(
    template: Database, new_database: Callable[..., Database], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A ledger with a month of deployments."""
    database = new_database(template.name)
    engine = command_engine(Settings.from_environment(database.environment))
    transfer.load(engine, transfer.sample(datetime.now(UTC)), print)
    server = Server(database.environment, tmp_path_factory.mktemp("pages") / "log")
    server.wait()
    yield server
    server.stop()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that must log no error and send no request to another host."""
    complaints: list[str] = []
    context = browser.new_context()
    page = context.new_page()

    def hear(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            complaints.append(message.text)

    def watch(request: Request) -> None:
        if not request.url.startswith(("http://127.0.0.1:", "data:")):
            complaints.append(request.url)

    page.on("console", hear)
    page.on("request", watch)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    context.close()
    assert complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", PATHS)
def test_no_serious_barrier(page: Page, server: Server, path: str, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(server.url + path)
    violations = Axe().run(page).response["violations"]
    assert [v["id"] for v in violations if v["impact"] in ("serious", "critical")] == []


def test_from_overview_to_a_deployment(page: Page, server: Server) -> None:
    page.goto(server.url)
    assert page.locator("thead th").all_inner_texts() == ["Service", "dev", "staging", "production"]
    assert page.locator("tbody th").all_inner_texts() == ["catalogue", "checkout", "search"]
    since = page.locator("tbody time").first
    assert since.inner_text().endswith(" ago")
    assert (since.get_attribute("title") or "").endswith(" UTC")
    page.get_by_role("link", name="checkout").click()
    assert page.locator("svg circle").count() == page.locator("tbody tr").count()
    page.locator("tbody a").first.click()
    assert page.locator("h1").inner_text().startswith("checkout 1.")
    assert Axe().run(page).violations_count == 0


def test_by_keyboard_alone(page: Page, server: Server) -> None:
    page.goto(server.url)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    for _ in range(3):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Diff"
    page.keyboard.press("Enter")
    page.wait_for_url("**/diff")
    assert page.locator("h1").inner_text() == "staging against production"


def test_dora_form(page: Page, server: Server) -> None:
    page.goto(server.url + "/dora")
    assert page.locator("h1").inner_text() == "How everything reaches production"
    page.get_by_label("Service").select_option("search")
    page.get_by_role("button", name="Show").click()
    assert page.locator("h1").inner_text() == "How search reaches production"
    assert page.locator(".cards b").count() == 4
    assert page.locator("svg rect").count() > 0


def test_reference_is_served_from_here(page: Page, server: Server) -> None:
    page.goto(server.url + "/api")
    page.get_by_text("Record a deployment as it starts").wait_for(timeout=10_000)


def test_empty_ledger_says_what_to_do(page: Page, serve: Callable[..., Server], own_database: Database) -> None:
    server = serve({**own_database.environment, "API_ADMIN_TOKEN": ADMIN})
    server.wait()
    for path, words in (("/", "token create"), ("/diff", "second one"), ("/dora", "first deployment")):
        page.goto(server.url + path)
        assert words in page.locator(".empty").inner_text()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/services/none", 404),
        ("/services/%00", 422),
        ("/deployments/1", 422),
        ("/diff?from=dev", 422),
        ("/dora?tz=x", 422),
        ("/dora?environment=none", 404),
        ("/x", 404),
    ],
)
def test_errors_are_pages_for_people(server: Server, path: str, status: int) -> None:
    answer = requests.get(server.url + path, headers={"Accept": "text/html"}, timeout=5)
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "text/html; charset=utf-8")
    assert answer.headers["X-Request-ID"] in answer.text
    answer = server.get(path)
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json")


def test_a_service_without_deployments(client: FlaskClient, connection: Connection) -> None:
    connection.execute(text("INSERT INTO services (name) VALUES ('idle')"))
    shown = client.get("/services/idle")
    assert shown.status_code == 200
    assert "<svg" not in shown.text


def test_strict_policy(server: Server) -> None:
    policy = server.get("/").headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


def test_private_pages_ask_for_the_token(serve: Callable[..., Server], own_database: Database) -> None:
    server = serve({**own_database.environment, "API_ADMIN_TOKEN": ADMIN, "API_READS": "private"})
    server.wait()
    answer = server.get("/")
    assert (answer.status_code, answer.headers["WWW-Authenticate"][:5]) == (401, "Basic")
    assert requests.get(server.url, auth=("me", ADMIN), timeout=5).status_code == 200
    assert Path(server.log).read_text().count(ADMIN) == 0
