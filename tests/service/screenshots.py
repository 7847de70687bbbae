"""Take pictures of the pages for the documents, light and dark: `make screenshots`."""

import shutil
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from flaskapp import migrate, transfer
from flaskapp.database import command_engine
from flaskapp.settings import Settings
from flaskapp_deploy.up.postgres import Postgres
from tests.postgres import Database
from tests.service.conftest import Server

PAGES = {"overview": "/", "service": "/services/checkout", "diff": "/diff", "dora": "/dora"}


def main(target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        postgres = Postgres(Path(directory), "password", durable=False)
        postgres.start()
        environment = Database(postgres, "postgres").environment
        engine = command_engine(Settings.from_environment(environment))
        migrate.upgrade(engine, 10, print)
        transfer.load(engine, transfer.sample(datetime.now(UTC)), print)
        server = Server(environment, Path(directory) / "server.log")
        try:
            server.wait()
            shoot(server.url, target)
        finally:
            server.stop()
            postgres.stop()


def shoot(url: str, target: Path) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            page = browser.new_page(color_scheme=scheme, viewport={"width": 1100, "height": 720})
            for name, path in PAGES.items():
                page.goto(url + path)
                shot(page, target / f"{name}-{scheme}.png")
                if name == "service":
                    page.locator("td a, th a").first.click()
                    shot(page, target / f"deployment-{scheme}.png")
        browser.close()


def shot(page: Page, path: Path) -> None:
    page.screenshot(path=path)
    print(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
