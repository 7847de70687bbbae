"""What revisions do beyond Alembic's own operations."""

import time
from typing import Any

import sqlalchemy as sa
from alembic import op

LONGEST = 2**31 - 1  # milliseconds that PostgreSQL takes as a limit


def create_index_concurrently(name: str, table: str, columns: list[str], **options: Any) -> None:
    """Create an index without a lock that would keep the previous release from writing; may be repeated.

    Call it first in a revision: it ends the transaction, and what comes after it is then all or nothing. It waits for
    every transaction that is open, the longest of which may be a backup's, up to the deadline of the command.
    """
    context = op.get_context()
    deadline: float = context.config.attributes["deadline"]  # type: ignore[union-attr]
    with context.autocommit_block():
        op.execute("SET lock_timeout = 0")  # these waits hold up nobody
        milliseconds = min(max(1, (deadline - time.monotonic()) * 1000), LONGEST)
        op.execute(f"SET statement_timeout = {int(milliseconds)}")
        valid = sa.text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)")
        if op.get_bind().scalar(valid, {"name": name}) is False:  # an attempt before this one was interrupted
            op.drop_index(name, table, postgresql_concurrently=True, if_exists=True)
        op.create_index(name, table, columns, postgresql_concurrently=True, if_not_exists=True, **options)
        op.execute("RESET statement_timeout")
        op.execute("RESET lock_timeout")
