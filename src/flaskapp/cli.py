"""The command line: `flaskapp …`, or `python -m flaskapp …` in the image."""

import sys
from collections.abc import Callable

import click
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from flaskapp import __version__, migrate
from flaskapp.database import command_engine
from flaskapp.settings import Settings, SettingsError

timeout_option = click.option("--timeout", default=300.0, show_default=True, help="Seconds to wait at most.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="flaskapp")
def cli() -> None:
    """The release ledger: what runs where, since when, and was it safe.

    Settings come from the environment (DB_HOST, DB_NAME, DB_USERNAME, DB_PASSWORD, …).
    """


@cli.group()
def db() -> None:
    """The database's schema."""


@db.command()
@timeout_option
def upgrade(timeout: float) -> None:
    """Bring the schema up to date; safe to run twice, and by many at once."""
    report(lambda engine: migrate.upgrade(engine, timeout, say))


@db.command()
def check() -> None:
    """Exit 0 when this code can serve on the schema, 1 when not."""
    report(migrate.check)


@db.command()
@timeout_option
def wait(timeout: float) -> None:
    """Wait until this code can serve on the schema."""
    report(lambda engine: migrate.wait(engine, timeout, say))


def report(work: Callable[[Engine], str]) -> None:
    """Do it and print what it says."""
    say(work(command_engine(Settings.from_environment())))


def say(line: str) -> None:
    click.echo(line)
    sys.stdout.flush()


def main() -> None:
    """Errors that the user can mend are one line and exit code 1."""
    try:
        cli(prog_name="flaskapp")
    except (SettingsError, migrate.SchemaError, SQLAlchemyError) as error:
        sys.exit(f"flaskapp: {migrate.first_line(error)}")
