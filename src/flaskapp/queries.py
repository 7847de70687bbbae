"""SQL with `:name` parameters for psycopg2; frequent statements are prepared once in a session."""

from collections.abc import Mapping
from itertools import count
from typing import Any

import psycopg2.extensions
from psycopg2.extras import register_uuid
from sqlalchemy import text
from sqlalchemy.dialects import postgresql

register_uuid()  # type: ignore[no-untyped-call]

DRIVER = postgresql.psycopg2.dialect()  # type: ignore[no-untyped-call]
SERVER = postgresql.psycopg2.dialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]
NUMBERS = count(1)


class Session(psycopg2.extensions.connection):
    """A connection that remembers which statements it has prepared."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.prepared: set[str] = set()


class Query:
    """One SQL statement.

    `prepared` prepares it once in each session, as planning takes longer than reading a few rows. Don't use it where
    the best plan depends on the values, or where PostgreSQL can't infer the types of the parameters.
    """

    def __init__(self, statement: str, prepared: bool = False):
        self.sql = str(text(statement).compile(dialect=DRIVER))
        self.name = f"prepared_{next(NUMBERS)}" if prepared else ""
        if prepared:
            compiled: Any = text(statement).compile(dialect=SERVER)
            arguments = ", ".join(f"%({name})s" for name in compiled.positiontup or ())
            self.prepare = f"PREPARE {self.name} AS {compiled}"
            self.ask = f"EXECUTE {self.name} ({arguments})" if arguments else f"EXECUTE {self.name}"

    def run(self, cursor: Any, values: Mapping[str, Any] | None = None) -> None:
        """Execute the statement; the rows are in the cursor."""
        if not self.name:
            cursor.execute(self.sql, values or {})
            return
        if self.name not in cursor.connection.prepared:
            cursor.execute(self.prepare)
            cursor.connection.prepared.add(self.name)
        cursor.execute(self.ask, values)

    def scalar(self, cursor: Any, values: Mapping[str, Any] | None = None) -> Any:
        """Execute the statement and return the first column of its first row, or None without rows."""
        self.run(cursor, values)
        row = cursor.fetchone()
        return row[0] if row else None
