"""A baseline: the usual Flask-SQLAlchemy session, entities and jsonify, on the service's own tables."""

from typing import Any

import psycopg2
from flask import Flask, Response, jsonify
from sqlalchemy import select
from sqlalchemy.orm import Mapped, joinedload, relationship

from flaskapp.database import db
from flaskapp.models import Deployment, Environment, Service
from flaskapp.settings import Settings


class Entity(Deployment):
    """A deployment with its service and environment."""

    service: Mapped[Service] = relationship(Service)
    environment: Mapped[Environment] = relationship(Environment)


settings = Settings.from_environment()
app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = "postgresql+psycopg2://"
app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {
    "pool_size": 4,
    "max_overflow": 0,
    "creator": lambda: psycopg2.connect(**settings.connection_parts()),
}
db.init_app(app)


def shown(d: Entity) -> dict[str, Any]:
    """Return a deployment as the API shows it."""
    return {
        "id": d.id,
        "service": d.service.name,
        "environment": d.environment.name,
        "version": d.version,
        "status": d.status,
        "commit": d.commit,
        "committed_at": d.committed_at and d.committed_at.isoformat(),
        "digest": d.digest,
        "chart_version": d.chart_version,
        "rollback_of": d.rollback_of,
        "actor": d.actor,
        "link": d.link,
        "started_at": d.started_at.isoformat(),
        "finished_at": d.finished_at and d.finished_at.isoformat(),
    }


BOTH = (joinedload(Entity.service), joinedload(Entity.environment))


@app.get("/api/v1/deployments/<id>")
def one(id: str) -> Response:
    """One deployment."""
    return jsonify(shown(db.session.scalars(select(Entity).options(*BOTH).where(Entity.id == id)).one()))


@app.get("/api/v1/deployments")
def index() -> Response:
    """The newest twenty."""
    newest = select(Entity).options(*BOTH).order_by(Entity.started_at.desc(), Entity.id.desc()).limit(20)
    return jsonify(items=[shown(d) for d in db.session.scalars(newest)])
