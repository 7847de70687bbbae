"""Files that people upload, on a volume."""

from pathlib import Path

from flask import Flask, Response, request, send_from_directory
from werkzeug.utils import secure_filename

FOLDER = Path("/data")

app = Flask(__name__)


@app.put("/files/<name>")
def upload(name: str) -> tuple[dict[str, int], int]:
    return {"bytes": (FOLDER / secure_filename(name)).write_bytes(request.get_data())}, 201


@app.get("/files/<name>")
def download(name: str) -> Response:
    return send_from_directory(FOLDER, secure_filename(name))


@app.get("/health")
def health() -> str:
    return "ok"
