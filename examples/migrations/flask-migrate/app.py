"""A shop's items, with Flask-SQLAlchemy and Flask-Migrate."""

import os

from flask import Flask, request
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
db = SQLAlchemy(app)
Migrate(app, db)


class Item(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    name = db.Column(db.String, nullable=False)


@app.get("/")
def items():
    return {"items": [item.name for item in db.session.scalars(db.select(Item).order_by(Item.id.desc()).limit(10))]}


@app.post("/")
def add():
    db.session.add(Item(name=request.form["name"]))
    db.session.commit()
    return {}, 201
