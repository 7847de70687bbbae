"""Alembic runs this for each command, on the connection that flaskapp.migrate passes to it."""

from alembic import context

import flaskapp.models  # noqa: F401 - fills the metadata
from flaskapp.database import Model

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Model.metadata,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
