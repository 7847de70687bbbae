"""The tables. Each rule that the API documents is a constraint here too."""

import secrets
import time
from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, DateTime, ForeignKey, Identity, Index, MetaData, Text, Uuid, func
from sqlalchemy.orm import Mapped, mapped_column

from flaskapp.database import Model

Model.metadata.naming_convention = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "uq": "%(table_name)s_%(column_0_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
).naming_convention
Model.registry.update_type_annotation_map({str: Text, datetime: DateTime(timezone=True), UUID: Uuid})

NAME = r"^[a-z0-9]([a-z0-9._-]{0,98}[a-z0-9])?$"
COMMIT = r"^[0-9a-f]{7,64}$"
DIGEST = r"^sha256:[0-9a-f]{64}$"
LINK = r"^https?://[^[:space:]]+$"
STATUSES = ("started", "succeeded", "failed", "rolled_back")


def uuid7() -> UUID:
    """Return a UUID version 7 (RFC 9562): ordered by time, so that inserts hit cached index pages."""
    milliseconds = time.time_ns() // 1_000_000
    random = secrets.randbits(74)
    value = milliseconds << 80 | 0x7 << 76 | (random >> 62) << 64 | 0b10 << 62 | random & (1 << 62) - 1
    return UUID(int=value)


class Service(Model):
    """Something that is deployed."""

    __tablename__ = "services"
    __table_args__ = (CheckConstraint(f"name ~ '{NAME}'", name="name"),)

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Environment(Model):
    """A place to deploy to; a release passes through environments in the order of `position`, lowest first."""

    __tablename__ = "environments"
    __table_args__ = (CheckConstraint(f"name ~ '{NAME}'", name="name"),)

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    position: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Deployment(Model):
    """An attempt to deploy, and its outcome; a manual rollback is a new row that names what it undoes.

    `digest` is the image's `sha256:…` as the registry reports it.
    """

    __tablename__ = "deployments"
    __table_args__ = (
        CheckConstraint("length(version) BETWEEN 1 AND 200", name="version"),
        CheckConstraint(f"commit ~ '{COMMIT}'", name="commit"),
        CheckConstraint(f"digest ~ '{DIGEST}'", name="digest"),
        CheckConstraint("length(chart_version) BETWEEN 1 AND 200", name="chart_version"),
        CheckConstraint("length(actor) BETWEEN 1 AND 200", name="actor"),
        CheckConstraint(f"link ~ '{LINK}' AND length(link) <= 2000", name="link"),
        CheckConstraint(f"status IN {STATUSES}", name="status"),
        CheckConstraint("(status = 'started') = (finished_at IS NULL)", name="finished_when_not_started"),
        CheckConstraint("finished_at >= started_at", name="finished_after_started"),
        CheckConstraint("rollback_of <> id", name="rollback_of_another"),
        # Lists, newest first: of everything, of one service, of one service in one environment.
        Index("deployments_newest", "started_at", "id"),
        Index("deployments_of_service", "service_id", "started_at", "id"),
        Index("deployments_of_service_environment", "service_id", "environment_id", "started_at", "id"),
        # The overview reads the newest success of each service and environment.
        Index(
            "deployments_current",
            "service_id",
            "environment_id",
            "finished_at",
            "id",
            postgresql_where="status = 'succeeded'",
        ),
        # The DORA metrics read what ended in an environment within a range of days.
        Index("deployments_finished", "environment_id", "finished_at", postgresql_where="status <> 'started'"),
        # Few rows are under way, and `status=started` asks for them.
        Index("deployments_started", "started_at", "id", postgresql_where="status = 'started'"),
        Index("deployments_rollback_of", "rollback_of", postgresql_where="rollback_of IS NOT NULL"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    service_id: Mapped[int] = mapped_column(ForeignKey("services.id"))
    environment_id: Mapped[int] = mapped_column(ForeignKey("environments.id"))
    version: Mapped[str]
    commit: Mapped[str | None]
    committed_at: Mapped[datetime | None]
    digest: Mapped[str | None]
    chart_version: Mapped[str | None]
    status: Mapped[str] = mapped_column(server_default="started")
    rollback_of: Mapped[UUID | None] = mapped_column(ForeignKey("deployments.id"))
    actor: Mapped[str | None]
    link: Mapped[str | None]
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Failure(Model):
    """A report that a deployment broke after it had succeeded; open while `restored_at` is null."""

    __tablename__ = "failures"
    __table_args__ = (
        CheckConstraint("restored_at >= failed_at", name="restored_after_failed"),
        CheckConstraint("length(summary) BETWEEN 1 AND 200", name="summary"),
        CheckConstraint(f"link ~ '{LINK}' AND length(link) <= 2000", name="link"),
        Index("failures_of_deployment", "deployment_id", "failed_at"),
        Index("failures_open", "deployment_id", unique=True, postgresql_where="restored_at IS NULL"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    deployment_id: Mapped[UUID] = mapped_column(ForeignKey("deployments.id", ondelete="CASCADE"))
    failed_at: Mapped[datetime]
    restored_at: Mapped[datetime | None]
    summary: Mapped[str | None]
    link: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Token(Model):
    """A bearer token, of which only the SHA-256 is stored; `service_id` is the only service that it may write."""

    __tablename__ = "api_tokens"
    __table_args__ = (
        CheckConstraint("length(name) BETWEEN 1 AND 100", name="name"),
        CheckConstraint("scope IN ('read', 'write', 'admin')", name="scope"),
        CheckConstraint("length(hash) = 32", name="hash"),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    hash: Mapped[bytes] = mapped_column(unique=True)
    scope: Mapped[str]
    service_id: Mapped[int | None] = mapped_column(ForeignKey("services.id"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]


class IdempotencyKey(Model):
    """The answer to a caller's Idempotency-Key, kept for a day, so that a repeated request adds no deployment."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (
        CheckConstraint("length(key) BETWEEN 1 AND 200", name="key"),
        Index("idempotency_keys_created_at", "created_at"),
    )

    caller: Mapped[bytes] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[bytes]
    answer: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
