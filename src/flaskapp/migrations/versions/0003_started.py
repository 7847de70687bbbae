"""An index of deployments under way, so that `status=started` does not scan the whole table."""

from flaskapp.migrations.operations import create_index_concurrently

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the index."""
    create_index_concurrently(
        "deployments_started", "deployments", ["started_at", "id"], postgresql_where="status = 'started'"
    )
