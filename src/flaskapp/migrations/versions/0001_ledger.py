"""The ledger: services, environments, deployments."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the three tables and their indexes."""
    op.create_table(
        "environments",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("name ~ '^[a-z0-9]([a-z0-9._-]{0,98}[a-z0-9])?$'", name=op.f("environments_name_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("environments_pkey")),
        sa.UniqueConstraint("name", name=op.f("environments_name_key")),
    )
    op.create_table(
        "services",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("name ~ '^[a-z0-9]([a-z0-9._-]{0,98}[a-z0-9])?$'", name=op.f("services_name_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("services_pkey")),
        sa.UniqueConstraint("name", name=op.f("services_name_key")),
    )
    op.create_table(
        "deployments",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("service_id", sa.Integer(), nullable=False),
        sa.Column("environment_id", sa.Integer(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("commit", sa.Text(), nullable=True),
        sa.Column("committed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("digest", sa.Text(), nullable=True),
        sa.Column("chart_version", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), server_default="started", nullable=False),
        sa.Column("rollback_of", sa.Uuid(), nullable=True),
        sa.Column("actor", sa.Text(), nullable=True),
        sa.Column("link", sa.Text(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "(status = 'started') = (finished_at IS NULL)", name=op.f("deployments_finished_when_not_started_check")
        ),
        sa.CheckConstraint("commit ~ '^[0-9a-f]{7,64}$'", name=op.f("deployments_commit_check")),
        sa.CheckConstraint("digest ~ '^sha256:[0-9a-f]{64}$'", name=op.f("deployments_digest_check")),
        sa.CheckConstraint(
            "link ~ '^https?://[^[:space:]]+$' AND length(link) <= 2000", name=op.f("deployments_link_check")
        ),
        sa.CheckConstraint(
            "status IN ('started', 'succeeded', 'failed', 'rolled_back')", name=op.f("deployments_status_check")
        ),
        sa.CheckConstraint("finished_at >= started_at", name=op.f("deployments_finished_after_started_check")),
        sa.CheckConstraint("length(actor) BETWEEN 1 AND 200", name=op.f("deployments_actor_check")),
        sa.CheckConstraint("length(chart_version) BETWEEN 1 AND 200", name=op.f("deployments_chart_version_check")),
        sa.CheckConstraint("length(version) BETWEEN 1 AND 200", name=op.f("deployments_version_check")),
        sa.CheckConstraint("rollback_of <> id", name=op.f("deployments_rollback_of_another_check")),
        sa.ForeignKeyConstraint(["environment_id"], ["environments.id"], name=op.f("deployments_environment_id_fkey")),
        sa.ForeignKeyConstraint(["rollback_of"], ["deployments.id"], name=op.f("deployments_rollback_of_fkey")),
        sa.ForeignKeyConstraint(["service_id"], ["services.id"], name=op.f("deployments_service_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("deployments_pkey")),
    )
    op.create_index(
        "deployments_current",
        "deployments",
        ["service_id", "environment_id", "finished_at", "id"],
        postgresql_where="status = 'succeeded'",
    )
    op.create_index("deployments_newest", "deployments", ["started_at", "id"])
    op.create_index("deployments_of_service", "deployments", ["service_id", "started_at", "id"])
    op.create_index(
        "deployments_of_service_environment", "deployments", ["service_id", "environment_id", "started_at", "id"]
    )
    op.create_index(
        "deployments_rollback_of", "deployments", ["rollback_of"], postgresql_where="rollback_of IS NOT NULL"
    )
