"""The queue and its tasks: the web pods enqueue, the worker runs them."""

import os
import time

import psycopg
from procrastinate import App, PsycopgConnector

URL = os.environ.get("DATABASE_URL", "")

queue = App(connector=PsycopgConnector(conninfo=URL))


@queue.task
def work(number: int, seconds: float) -> None:
    """Work for some seconds, then leave one row: a job that runs twice leaves two."""
    time.sleep(seconds)
    with psycopg.connect(URL) as connection:
        connection.execute("INSERT INTO results (number, worker) VALUES (%s, %s)", (number, os.uname().nodename))
