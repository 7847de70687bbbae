"""An index of what is under way, which `status=started` would else look for in the whole table."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Without a lock that would keep the previous release from writing.
    with op.get_context().autocommit_block():
        op.create_index(
            "deployments_started",
            "deployments",
            ["started_at", "id"],
            postgresql_where="status = 'started'",
            postgresql_concurrently=True,
        )
