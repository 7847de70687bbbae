"""Create the tables of the queue and of the results, in one transaction; safe to repeat."""

import psycopg
import tasks
from procrastinate.schema import SchemaManager

RESULTS = """
CREATE TABLE IF NOT EXISTS results (
    number integer NOT NULL, worker text NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp()
)
"""

with psycopg.connect(tasks.URL) as connection:
    # The queue's own schema can't be applied twice.
    if connection.execute("SELECT to_regclass('procrastinate_jobs')").fetchone() == (None,):
        connection.execute(SchemaManager.get_schema())
    connection.execute(RESULTS)
