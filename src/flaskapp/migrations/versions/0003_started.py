"""An index of what is under way, which `status=started` would else look for in the whole table."""

from flaskapp.migrations.operations import create_index_concurrently

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_index_concurrently(
        "deployments_started", "deployments", ["started_at", "id"], postgresql_where="status = 'started'"
    )
