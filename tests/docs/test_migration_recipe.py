"""The chart's README has commands for Flask-Migrate: they are run here, through an upgrade and a rollback."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.docs.pages import ROOT
from tests.postgres import Database, new_database, postgres

__all__ = ["new_database", "postgres"]  # pytest finds these fixtures by their names

APPLICATION = """
import os

from flask import Flask
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import URL

app = Flask(__name__)
parts = {name: os.environ[f"DB_{name.upper()}"] for name in ("host", "port", "username", "password")}
parts["port"] = int(parts["port"])
app.config["SQLALCHEMY_DATABASE_URI"] = URL.create("postgresql+psycopg2", database=os.environ["DB_NAME"], **parts)
db = SQLAlchemy(app)
Migrate(app, db)


class Item(db.Model):
    id = db.Column(db.Integer, primary_key=True)
"""


class Image:
    """Where a version's commands run: its directory, and a database."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        page = (ROOT / "charts/flaskapp/README.md.gotmpl").read_text()
        [values] = [block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "migrations:" in block]
        self.migrations = yaml.safe_load(values)["migrations"]

    def run(self, command: list[str], database: Database) -> subprocess.CompletedProcess[str]:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {"PATH": path, "FLASK_APP": "app", **database.environment}
        return subprocess.run(command, cwd=self.directory, env=environment, capture_output=True, text=True)

    def migrates(self, database: Database) -> bool:
        return self.run(self.migrations["command"], database).returncode == 0

    def serves(self, database: Database) -> bool:
        return self.run(self.migrations["waitCommand"], database).returncode == 0


@pytest.fixture
def versions(tmp_path: Path, new_database: Callable[..., Database]) -> list[Image]:
    """Two releases, the second with one revision more, made by Flask-Migrate itself."""
    images: list[Image] = []
    source = APPLICATION
    scratch = new_database()
    for number in (1, 2):
        image = Image(tmp_path / f"v{number}")
        if images:
            subprocess.run(["cp", "-r", images[0].directory, image.directory], check=True)
            source += "    name = db.Column(db.String)\n"
        else:
            image.directory.mkdir()
        (image.directory / "app.py").write_text(source)
        for command in (["migrate"], ["upgrade"]) if images else (["init"], ["migrate"], ["upgrade"]):
            result = image.run(["flask", "db", *command], scratch)
            assert result.returncode == 0, result.stderr
        images.append(image)
    return images


def test_an_upgrade_and_a_rollback(versions: list[Image], new_database: Callable[..., Database]) -> None:
    first, second = versions
    database = new_database()
    assert not first.serves(database)
    assert first.migrates(database)
    assert first.serves(database)

    assert not second.serves(database)
    assert second.migrates(database)
    assert second.serves(database)
    database.execute("CREATE INDEX by_hand ON item (name)")
    assert second.serves(database), "an index that the models don't have"

    assert first.migrates(database)
    assert first.serves(database)
    assert database.execute("SELECT count(*) FROM information_schema.columns WHERE table_name = 'item'") == [(2,)]


def test_a_failure_stays_one(versions: list[Image], new_database: Callable[..., Database]) -> None:
    away = new_database()
    nowhere = Database(away.server, away.name, port=1)
    assert not versions[0].migrates(nowhere)
    assert not versions[0].serves(nowhere)

    database = new_database()
    database.execute("CREATE TABLE item (other int)")  # conflicts with the first revision
    assert not versions[0].migrates(database)
    assert not versions[0].serves(database)
