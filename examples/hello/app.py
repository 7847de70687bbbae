"""A small Flask application, as many people have one: no package, no configuration, nothing of this repository."""

import os

from flask import Flask

app = Flask(__name__)


@app.get("/")
def hello() -> dict[str, str]:
    return {"message": os.environ.get("GREETING", "Hello, world"), "host": os.uname().nodename}
