"""Import and export deployments as NDJSON, one deployment a line, in constant memory; an import is all or nothing."""

import io
import json
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, TextIO
from uuid import UUID

import psycopg2.extensions
from pydantic import ValidationError
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from flaskapp.api.schemas import NewDeployment
from flaskapp.models import uuid7

BATCH = 5000  # lines
SHOWN = 20  # bad lines reported one by one

COLUMNS = (
    "id",
    "service",
    "environment",
    "version",
    "commit",
    "committed_at",
    "digest",
    "chart_version",
    "status",
    "rollback_of",
    "actor",
    "link",
    "started_at",
    "finished_at",
)
ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})

STAGE = """
    CREATE TEMPORARY TABLE stage (
        id uuid, service text, environment text, version text, commit text, committed_at timestamptz, digest text,
        chart_version text, status text, rollback_of uuid, actor text, link text, started_at timestamptz,
        finished_at timestamptz
    ) ON COMMIT DROP
"""
COPY = f"COPY stage ({', '.join(COLUMNS)}) FROM STDIN"
MOVE = (
    "INSERT INTO services (name) SELECT DISTINCT service FROM stage ON CONFLICT DO NOTHING",
    """INSERT INTO environments (name, position)
       SELECT name, (SELECT coalesce(max(position), 0) FROM environments) + row_number() OVER (ORDER BY first)
       FROM (SELECT environment AS name, min(started_at) AS first FROM stage GROUP BY 1) new
       WHERE name NOT IN (SELECT name FROM environments) ON CONFLICT DO NOTHING""",
    """INSERT INTO deployments (id, service_id, environment_id, version, commit, committed_at, digest, chart_version,
                                status, rollback_of, actor, link, started_at, finished_at)
       SELECT t.id, s.id, e.id, t.version, t.commit, t.committed_at, t.digest, t.chart_version,
              t.status, t.rollback_of, t.actor, t.link, t.started_at, t.finished_at
       FROM stage t JOIN services s ON s.name = t.service JOIN environments e ON e.name = t.environment""",
)


class TransferError(Exception):
    """Nothing was imported; the message is one line."""


class Line(NewDeployment):
    """A deployment as exported, with its id."""

    id: UUID | None = None


def load(engine: Engine, lines: Iterable[bytes], say: Callable[[str], None]) -> int:
    """Import deployments and return their number; `say` gets a line for each bad one.

    Raises:
        TransferError: A line is bad; nothing was imported.
    """
    bad = count = 0
    with engine.begin() as connection:
        driver: psycopg2.extensions.connection = connection.connection.driver_connection  # type: ignore[assignment]
        with driver.cursor() as cursor:
            cursor.execute(STAGE)
            rows = io.StringIO()
            for number, content in enumerate(lines, 1):
                try:
                    if not bad:
                        rows.write(row(content))
                    else:
                        Line.model_validate_json(content)
                except ValidationError as error:
                    bad += 1
                    if bad <= SHOWN:
                        say(f"line {number}: {complaint(error)}")
                count = number
                if number % BATCH == 0:
                    rows = flush(cursor, rows)
                    if number % (BATCH * 20) == 0:
                        say(f"{number} lines read")
            if bad:
                raise TransferError(f"{bad} of {count} lines are bad; nothing was imported")
            flush(cursor, rows)
            for statement in MOVE:
                cursor.execute(statement)
    return count


def flush(cursor: Any, rows: io.StringIO) -> io.StringIO:
    """Send the rows to the temporary table and return an empty buffer."""
    rows.seek(0)
    cursor.copy_expert(COPY, rows)
    return io.StringIO()


def row(content: bytes) -> str:
    """Validate a line and return it in COPY's text format."""
    values = vars(Line.model_validate_json(content))  # the plain dictionary: setting a model's attributes is slower
    values["id"] = values["id"] or uuid7()
    values["started_at"] = values["started_at"] or values["finished_at"] or datetime.now(UTC)
    if values["status"] != "started":
        values["finished_at"] = values["finished_at"] or values["started_at"]
    return "\t".join([field(values[name]) for name in COLUMNS]) + "\n"


def field(value: Any) -> str:
    """Return a value in COPY's text format."""
    if value is None:
        return r"\N"
    if isinstance(value, str):
        return value.translate(ESCAPES)
    return str(value)


def complaint(error: ValidationError) -> str:
    """Return the first error of a line, with the field's name."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else str(first["msg"])


EXPORT = text("""
    SELECT row_to_json(r)::text FROM (
        SELECT d.id, s.name AS service, e.name AS environment, d.version, d.commit, d.committed_at, d.digest,
               d.chart_version, d.status, d.rollback_of, d.actor, d.link, d.started_at, d.finished_at
        FROM deployments d JOIN services s ON s.id = d.service_id JOIN environments e ON e.id = d.environment_id
        ORDER BY d.started_at, d.id
    ) r
""")


def dump(engine: Engine, output: TextIO) -> int:
    """Export all deployments, the oldest first, and return their number."""
    count = 0
    for line in stored(engine):
        output.write(line + "\n")
        count += 1
    return count


def stored(engine: Engine) -> Iterator[str]:
    """Yield every deployment as JSON, the oldest first, without holding all in memory."""
    with engine.connect() as connection:
        yield from connection.execution_options(yield_per=1000).execute(EXPORT).scalars()


PRUNE_KEYS = text("DELETE FROM idempotency_keys WHERE created_at < now() - interval '1 day'")
# Kept at any age: what runs somewhere now, what a kept rollback undoes, and what that undoes in turn.
PRUNE = text("""
    WITH RECURSIVE old AS (
        SELECT id FROM deployments d WHERE started_at < :before
        AND EXISTS (
            SELECT FROM deployments n WHERE n.service_id = d.service_id AND n.environment_id = d.environment_id
            AND n.status = 'succeeded' AND (n.finished_at, n.id) > (d.finished_at, d.id)
        )
    ), named (id) AS (
        SELECT rollback_of FROM deployments WHERE rollback_of IS NOT NULL AND id NOT IN (SELECT id FROM old)
        UNION
        SELECT d.rollback_of FROM named JOIN deployments d USING (id) WHERE d.rollback_of IS NOT NULL
    )
    DELETE FROM deployments WHERE id IN (SELECT id FROM old) AND id NOT IN (SELECT id FROM named)
""")
ATTEMPTS = 5  # a rollback of an old deployment may be recorded while that deployment is being deleted


def prune(engine: Engine, before: datetime) -> int:
    """Delete deployments that started before this time, except what runs somewhere now; return their number."""
    for attempt in range(ATTEMPTS):
        try:
            with engine.begin() as connection:
                connection.execute(PRUNE_KEYS)
                return connection.execute(PRUNE, {"before": before}).rowcount
        except IntegrityError:
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError


def sample(now: datetime) -> Iterator[bytes]:
    """Yield a month of sample deployments: three services on their way through three environments, some rolled back."""
    minutes = timedelta(minutes=1)
    for day in range(28, 0, -1):
        for place, service in enumerate(("checkout", "catalogue", "search")):
            if (day + place) % (place + 2):
                continue
            for step, environment in enumerate(("dev", "staging", "production")):
                started = now - timedelta(days=day, hours=6 - 2 * step, minutes=7 * place)
                failed = environment != "dev" and (day * 7 + place * 3 + step) % 9 == 0
                yield json.dumps(
                    {
                        "service": service,
                        "environment": environment,
                        "version": f"1.{28 - day}.0",
                        "commit": f"{day * 1000003 + place:012x}",
                        "committed_at": (started - (40 + 90 * step) * minutes).isoformat(),
                        "status": "rolled_back" if failed else "succeeded",
                        "actor": "pipeline",
                        "started_at": started.isoformat(),
                        "finished_at": (started + (2 + step) * minutes).isoformat(),
                    }
                ).encode()
                if failed:
                    break
