"""Failure reports, API tokens, idempotency keys: new tables and an index, which the previous release ignores."""

import sqlalchemy as sa
from alembic import op

from flaskapp.migrations.operations import create_index_concurrently

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the index, then the tables."""
    # Until 0.2.0 this came last, and an interruption left the tables without the revision: hence `if_not_exists`.
    create_index_concurrently(
        "deployments_finished",
        "deployments",
        ["environment_id", "finished_at"],
        postgresql_where="status <> 'started'",
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("caller", sa.LargeBinary(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("length(key) BETWEEN 1 AND 200", name=op.f("idempotency_keys_key_check")),
        sa.PrimaryKeyConstraint("caller", "key", name=op.f("idempotency_keys_pkey")),
        if_not_exists=True,
    )
    op.create_index("idempotency_keys_created_at", "idempotency_keys", ["created_at"], if_not_exists=True)
    op.create_table(
        "api_tokens",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("service_id", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("scope IN ('read', 'write', 'admin')", name=op.f("api_tokens_scope_check")),
        sa.CheckConstraint("length(hash) = 32", name=op.f("api_tokens_hash_check")),
        sa.CheckConstraint("length(name) BETWEEN 1 AND 100", name=op.f("api_tokens_name_check")),
        sa.ForeignKeyConstraint(["service_id"], ["services.id"], name=op.f("api_tokens_service_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("api_tokens_pkey")),
        sa.UniqueConstraint("hash", name=op.f("api_tokens_hash_key")),
        sa.UniqueConstraint("name", name=op.f("api_tokens_name_key")),
        if_not_exists=True,
    )
    op.create_table(
        "failures",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("deployment_id", sa.Uuid(), nullable=False),
        sa.Column("failed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("restored_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("summary", sa.Text(), nullable=True),
        sa.Column("link", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "link ~ '^https?://[^[:space:]]+$' AND length(link) <= 2000", name=op.f("failures_link_check")
        ),
        sa.CheckConstraint("length(summary) BETWEEN 1 AND 200", name=op.f("failures_summary_check")),
        sa.CheckConstraint("restored_at >= failed_at", name=op.f("failures_restored_after_failed_check")),
        sa.ForeignKeyConstraint(
            ["deployment_id"], ["deployments.id"], name=op.f("failures_deployment_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("failures_pkey")),
        if_not_exists=True,
    )
    op.create_index("failures_of_deployment", "failures", ["deployment_id", "failed_at"], if_not_exists=True)
    op.create_index(
        "failures_open",
        "failures",
        ["deployment_id"],
        unique=True,
        postgresql_where="restored_at IS NULL",
        if_not_exists=True,
    )
