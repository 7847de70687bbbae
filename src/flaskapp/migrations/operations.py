"""Operations for revisions that Alembic does not have."""

import time
from typing import Any

import sqlalchemy as sa
from alembic import op

LONGEST = 2**31 - 1  # milliseconds, PostgreSQL's maximum for a timeout


def create_index_concurrently(name: str, table: str, columns: list[str], **options: Any) -> None:
    """Create an index without a lock that blocks writes of the previous release; it may be repeated.

    Call it first in a revision: it ends the transaction, and the operations after it are all or nothing. It waits for
    every open transaction (a backup's may be long) until the command's deadline.
    """
    context = op.get_context()
    deadline: float = context.config.attributes["deadline"]  # type: ignore[union-attr]
    with context.autocommit_block():
        op.execute("SET lock_timeout = 0")  # waiting for these locks blocks no other session
        milliseconds = min(max(1, (deadline - time.monotonic()) * 1000), LONGEST)
        op.execute(f"SET statement_timeout = {int(milliseconds)}")
        valid = sa.text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)")
        if op.get_bind().scalar(valid, {"name": name}) is False:  # an attempt before this one was interrupted
            op.drop_index(name, table, postgresql_concurrently=True, if_exists=True)
        op.create_index(name, table, columns, postgresql_concurrently=True, if_not_exists=True, **options)
        op.execute("RESET statement_timeout")
        op.execute("RESET lock_timeout")
