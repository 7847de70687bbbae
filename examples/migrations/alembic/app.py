"""A shop's items, with SQLAlchemy and Alembic."""

import os

import sqlalchemy as sa
from flask import Flask, request

app = Flask(__name__)
engine = sa.create_engine(os.environ["DATABASE_URL"])
metadata = sa.MetaData()
item = sa.Table(
    "item",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String, nullable=False),
)


@app.get("/")
def items():
    with engine.connect() as connection:
        rows = connection.execute(sa.select(item).order_by(item.c.id.desc()).limit(10))
        return {"items": [row.name for row in rows]}


@app.post("/")
def add():
    with engine.begin() as connection:
        connection.execute(sa.insert(item).values(name=request.form["name"]))
    return {}, 201
