"""The command line: `flaskapp …`, or `python -m flaskapp …` in the image."""

import json
import sys
from datetime import UTC, datetime
from typing import BinaryIO, TextIO

import click
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from flaskapp import __version__, migrate, tokens, transfer
from flaskapp.database import command_engine, first_line
from flaskapp.settings import Settings, SettingsError

EXPECTED = (SettingsError, migrate.SchemaError, tokens.TokenError, transfer.TransferError, SQLAlchemyError, OSError)

timeout_option = click.option("--timeout", default=300.0, show_default=True, help="Seconds to wait at most.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="flaskapp")
def cli() -> None:
    """The release ledger: what runs where, since when, and was it safe.

    Settings come from the environment: DB_HOST, DB_NAME, DB_USERNAME and DB_PASSWORD at least.
    """


@cli.group()
def db() -> None:
    """Migrate the schema, or wait until it is migrated."""


@db.command()
@timeout_option
def upgrade(timeout: float) -> None:
    """Bring the schema up to date; safe to run twice, and by many at once."""
    say(migrate.upgrade(engine(), timeout, say))


@db.command()
def check() -> None:
    """Exit 0 when this code can serve on the schema, 1 when not."""
    say(migrate.check(engine()))


@db.command()
@timeout_option
def wait(timeout: float) -> None:
    """Wait until this code can serve on the schema."""
    say(migrate.wait(engine(), timeout, say))


@cli.group()
def token() -> None:
    """Make, list and revoke API tokens."""


@token.command()
@click.argument("name")
@click.option("--scope", type=click.Choice(["read", "write", "admin"]), default="write", show_default=True)
@click.option("--service", help="The only service that it may write.")
@click.option("--expires", metavar="DURATION", help="12h, 90d, 4w, … from now. Never, if not given.")
def create(name: str, scope: str, service: str | None, expires: str | None) -> None:
    """Make a token called NAME and print it: it is not shown again."""
    say(tokens.create(engine(), name, scope, service, tokens.duration(expires) if expires else None))


@token.command("list")
def list_tokens() -> None:
    """List all tokens, without their secrets."""
    for line in tokens.listing(engine()):
        say(line)


@token.command()
@click.argument("name")
def revoke(name: str) -> None:
    """Refuse the token called NAME from now on."""
    tokens.revoke(engine(), name)
    say(f"{name} is revoked")


@cli.command("import", short_help="Add the deployments of an NDJSON file: all or none.")
@click.argument("file", type=click.File("rb"))
def import_file(file: BinaryIO) -> None:
    """Add the deployments in FILE (NDJSON, `-` for standard input): all of them or none."""
    count = transfer.load(engine(), file, lambda line: click.echo(line, err=True))
    say(f"{count} deployments imported")


@cli.command()
@click.argument("file", type=click.File("w"), default="-")
def export(file: TextIO) -> None:
    """Write all deployments to FILE as NDJSON, the oldest first."""
    count = transfer.dump(engine(), file)
    click.echo(f"{count} deployments exported", err=True)


@cli.command()
def seed() -> None:
    """Add a month of made-up deployments, to have something to look at."""
    count = transfer.load(engine(), transfer.sample(datetime.now(UTC)), say)
    say(f"{count} deployments added")


@cli.command()
@click.option("--older-than", "age", required=True, metavar="DURATION", help="730d, 104w, … by start.")
def prune(age: str) -> None:
    """Forget old deployments, but never what runs somewhere now."""
    say(f"{transfer.prune(engine(), datetime.now(UTC) - tokens.duration(age))} deployments forgotten")


@cli.command()
def openapi() -> None:
    """Print the OpenAPI document."""
    from flaskapp import create_app

    settings = Settings(db_host="none", db_name="none", db_username="none", db_password="none")  # noqa: S106
    say(json.dumps(create_app(settings).api_doc, indent=2, sort_keys=True))  # type: ignore[attr-defined]


def engine() -> Engine:
    """Create the engine that commands use, from the environment's settings."""
    return command_engine(Settings.from_environment())


def say(line: str) -> None:
    """Print a line at once, even if standard output is a pipe."""
    click.echo(line)
    sys.stdout.flush()


def main() -> None:
    """Run the command line; an error that the user can fix is one line and exit code 1."""
    try:
        cli(prog_name="flaskapp")
    except EXPECTED as error:
        sys.exit(f"flaskapp: {first_line(error)}")
