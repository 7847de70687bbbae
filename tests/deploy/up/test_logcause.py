"""The cause out of a log: of real servers that don't start, and of texts as other programs write them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flaskapp_deploy import logcause

SERVES = "def application(environ, start_response): ...\n"
SETTINGS = 'import os\n\nKEY = os.environ["SECRET_KEY"]\n'
# What wsgi.py has; gunicorn's options; the cause, with FOLDER for the application's.
STARTS: dict[str, tuple[str, list[str], str]] = {
    "variable": (SETTINGS, [], "KeyError: 'SECRET_KEY' (FOLDER/wsgi.py:3)"),
    "variable, preloaded": (SETTINGS, ["--preload"], "KeyError: 'SECRET_KEY' (FOLDER/wsgi.py:3)"),
    "variable, threads": (SETTINGS, ["--worker-class=gthread"], "KeyError: 'SECRET_KEY' (FOLDER/wsgi.py:3)"),
    "several workers": (SETTINGS, ["--workers=3"], "KeyError: 'SECRET_KEY' (FOLDER/wsgi.py:3)"),
    "module": ("import absent\n", [], "ModuleNotFoundError: No module named 'absent' (FOLDER/wsgi.py:1)"),
    "syntax": ("x = (\n", [], "SyntaxError: '(' was never closed (FOLDER/wsgi.py:1)"),
    "indentation": (
        "def f():\npass\n",
        [],
        "IndentationError: expected an indented block after function definition on line 1 (FOLDER/wsgi.py:2)",
    ),
    "several lines": (
        "raise RuntimeError('two settings are wrong:\\nSECRET_KEY\\nPORT')\n",
        [],
        "RuntimeError: two settings are wrong: SECRET_KEY PORT (FOLDER/wsgi.py:1)",
    ),
    "no message": ("raise NotImplementedError\n", [], "NotImplementedError (FOLDER/wsgi.py:1)"),
    "cause": (
        "try:\n    {}['x']\nexcept KeyError as error:\n    raise ValueError('no setting x') from error\n",
        [],
        "ValueError: no setting x (FOLDER/wsgi.py:4)",
    ),
    "context": (
        "try:\n    {}['x']\nexcept KeyError:\n    raise ValueError('no setting x')\n",
        [],
        "ValueError: no setting x (FOLDER/wsgi.py:4)",
    ),
    "in a package": (
        "import json\n\n\ndef read():\n    return json.loads('{')\n\n\nread()\n",
        [],
        "json.decoder.JSONDecodeError: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"
        " (FOLDER/wsgi.py:5)",
    ),
    "no such name": (
        "",
        ["wsgi:app"],
        "Failed to find attribute 'app' in 'wsgi'.",
    ),
}


@pytest.mark.parametrize("name", STARTS)
def test_a_server_that_does_not_start(name: str, tmp_path: Path) -> None:
    code, options, cause = STARTS[name]
    (tmp_path / "wsgi.py").write_text(code + SERVES)
    target = [] if "wsgi:app" in options else ["wsgi"]
    command = [sys.executable, "-m", "gunicorn", "--bind=127.0.0.1:0", "--no-control-socket", *options, *target]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    log = result.stdout + result.stderr
    assert result.returncode, log
    message = logcause.cause(log).replace(f"{tmp_path}/", "FOLDER/")
    assert message == cause, log


def test_a_configuration_that_does_not_load(tmp_path: Path) -> None:
    (tmp_path / "gunicorn.conf.py").write_text("raise ValueError('no')\n")
    result = subprocess.run(
        [sys.executable, "-m", "gunicorn"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert logcause.cause(result.stderr) == f"ValueError: no ({tmp_path}/gunicorn.conf.py:1)"


HEADER = "Traceback (most recent call last):\n"
APP = '  File "/app/shop/db.py", line 7, in connect\n    go()\n    ~~^^\n'
DEPS = '  File "/deps/sqlalchemy/engine/base.py", line 146, in __init__\n    raise\n'
END = """\
[2026-11-27 23:29:16 +0000] [7] [INFO] Worker exiting (pid: 7)
[2026-11-27 23:29:16 +0000] [1] [ERROR] Worker (pid:7) exited with code 3.
[2026-11-27 23:29:16 +0000] [1] [ERROR] Shutting down: Master
[2026-11-27 23:29:16 +0000] [1] [ERROR] Reason: Worker failed to boot.
"""
REFUSED = """\
sqlalchemy.exc.OperationalError: (psycopg2.OperationalError) connection to server at "db", port 5432 failed: refused
\tIs the server running on that host and accepting TCP/IP connections?

(Background on this error at: https://sqlalche.me/e/20/e3q8)
"""
PYDANTIC = """\
pydantic_core._pydantic_core.ValidationError: 1 validation error for Settings
SECRET_KEY
  Field required [type=missing, input_value={}, input_type=dict]
    For further information visit https://errors.pydantic.dev/2.12/v/missing
"""
GROUP = """\
  + Exception Group Traceback (most recent call last):
  |   File "/app/main.py", line 3, in <module>
  |     raise ExceptionGroup("two", [KeyError("TOKEN")])
  | ExceptionGroup: two (1 sub-exception)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "/app/main.py", line 9, in start
    |     go()
    | KeyError: 'TOKEN'
    +------------------------------------
"""
KEY_ERROR = f"{HEADER}{APP}KeyError: 'TOKEN'"
TEXTS: dict[str, tuple[str, str]] = {
    "nothing": ("\n \n", "it printed nothing"),
    "no traceback": (f"error: TOKEN is not set\n{END}", "error: TOKEN is not set"),
    "a record": (f"[2026-11-27 23:29:16 +0000] [1] [ERROR] no TLS certificate\n{END}", "no TLS certificate"),
    "routine alone": (END, "Reason: Worker failed to boot."),
    "requests at the end": (
        'no room left\n10.0.0.1 - - [27/Nov/2026:23:29:16 +0000] "GET /livez HTTP/1.1" 404 9 "-" "kube-probe/1.37"\n',
        "no room left",
    ),
    "exit": (f"{HEADER}{APP}SystemExit: 3\nno TOKEN\n", "no TOKEN"),
    "killed worker": (
        f"[2026-11-27 23:29:16 +0000] [1] [CRITICAL] WORKER TIMEOUT (pid:7)\n{HEADER}{DEPS}SystemExit: 1\n{END}",
        "SystemExit: 1",
    ),
    "gunicorn's own end": (
        f"{HEADER}{APP}KeyError: 'TOKEN'\n{END}{HEADER}{DEPS}gunicorn.errors.HaltServer: <HaltServer 'no' 3>\n\n"
        f"During handling of the above exception, another exception occurred:\n\n"
        f"{HEADER}{DEPS}gunicorn.errors.HaltServer: <HaltServer 'Worker failed to boot.' 3>\n",
        "KeyError: 'TOKEN' (/app/shop/db.py:7)",
    ),
    "database": (
        f"{HEADER}{DEPS}psycopg2.OperationalError: refused\n\n\nThe above exception was the direct cause of the"
        f" following exception:\n\n{HEADER}{APP}{DEPS}{REFUSED}{END}",
        'sqlalchemy.exc.OperationalError: (psycopg2.OperationalError) connection to server at "db", port 5432'
        " failed: refused Is the server running on that host and accepting TCP/IP connections?"
        " (/app/shop/db.py:7)",
    ),
    "pydantic": (
        f"{HEADER}{APP}{PYDANTIC}{END}",
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for Settings SECRET_KEY Field required"
        " [type=missing, input_value={}, input_type=dict] (/app/shop/db.py:7)",
    ),
    "django": (
        f"{HEADER}{APP}django.core.exceptions.ImproperlyConfigured: \nSet the SECRET_KEY.\n{END}",
        "django.core.exceptions.ImproperlyConfigured: Set the SECRET_KEY. (/app/shop/db.py:7)",
    ),
    "group": (GROUP, "KeyError: 'TOKEN' (/app/main.py:9)"),
    "uvicorn": (
        f"INFO:     Waiting for application startup.\nERROR:    {KEY_ERROR}\n\n"
        "ERROR:    Application startup failed. Exiting.\n",
        "KeyError: 'TOKEN' (/app/shop/db.py:7)",
    ),
    "ignored by Python": (
        f"{KEY_ERROR}\nException ignored in: <module 'threading'>\n{HEADER}{APP}RuntimeError: too late\n",
        "KeyError: 'TOKEN' (/app/shop/db.py:7)",
    ),
    "a request's, long ago": (f"{KEY_ERROR}\n" + "step done\n" * 30 + "no room left\n", "no room left"),
    "fatal": (
        'Fatal Python error: Segmentation fault\n\nThread 0x1 (most recent call first):\n  File "a.py", line 1\n',
        "Fatal Python error: Segmentation fault",
    ),
    "cut off": (f"starting\n{HEADER}{APP}", "go()"),
    "alembic": (
        "INFO  [alembic.runtime.migration] Context impl PostgresqlImpl.\n"
        "ERROR [alembic.util.messaging] Can't locate revision identified by 'a1'\n"
        "  FAILED: Can't locate revision identified by 'a1'\n",
        "FAILED: Can't locate revision identified by 'a1'",
    ),
    "alembic's SQL": (
        f"INFO  [alembic.runtime.migration] Running upgrade a1 -> b2, orders\n{HEADER}"
        '  File "/app/migrations/versions/b2.py", line 12, in upgrade\n    op.add_column()\n'
        f'{DEPS}sqlalchemy.exc.ProgrammingError: (psycopg2.errors.UndefinedTable) relation "orders" does not exist\n\n'
        "[SQL: ALTER TABLE orders ADD COLUMN paid BOOLEAN]\n",
        'sqlalchemy.exc.ProgrammingError: (psycopg2.errors.UndefinedTable) relation "orders" does not exist'
        " (/app/migrations/versions/b2.py:12)",
    ),
    "flask": (
        "Error: Could not locate a Flask application. Use the 'flask --app' option.\n",
        "Error: Could not locate a Flask application. Use the 'flask --app' option.",
    ),
    "JSON, message": ('{"level": "ERROR", "message": "no TOKEN"}\n', "no TOKEN"),
    "JSON, no message": ('{"level": "ERROR"}\n', '{"level": "ERROR"}'),
    "JSON, gunicorn": (
        '{"message": "no TOKEN"}\n{"message": "Shutting down: Master"}\n'
        '{"message": "Reason: Worker failed to boot."}\n',
        "no TOKEN",
    ),
}
RECORDS: dict[str, tuple[dict[str, object], str]] = {
    "exception": ({"event": "boot", "exception": KEY_ERROR}, "KeyError: 'TOKEN' (/app/shop/db.py:7)"),
    "exc_info": ({"message": "boot", "exc_info": KEY_ERROR}, "KeyError: 'TOKEN' (/app/shop/db.py:7)"),
    "message": ({"severity": "ERROR", "message": f"boot\n{KEY_ERROR}"}, "KeyError: 'TOKEN' (/app/shop/db.py:7)"),
    "nested": ({"error": {"stack_trace": KEY_ERROR}}, "KeyError: 'TOKEN' (/app/shop/db.py:7)"),
    "structlog": (
        {
            "event": "boot",
            "exception": [
                {
                    "exc_type": "KeyError",
                    "exc_value": "'TOKEN'",
                    "frames": [{"filename": "/app/shop/db.py", "lineno": 7, "name": "connect"}],
                }
            ],
        },
        "KeyError: 'TOKEN' (/app/shop/db.py:7)",
    ),
    "ECS": ({"message": "boot", "error": {"type": "KeyError", "message": "'TOKEN'"}}, "KeyError: 'TOKEN'"),
    "loguru": (
        {"text": "boot", "record": {"exception": {"type": "KeyError", "value": "'TOKEN'"}}},
        "KeyError: 'TOKEN'",
    ),
}


@pytest.mark.parametrize("name", TEXTS)
def test_text(name: str) -> None:
    log, cause = TEXTS[name]
    assert logcause.cause(log) == cause


@pytest.mark.parametrize("name", RECORDS)
def test_record(name: str) -> None:
    record, cause = RECORDS[name]
    assert logcause.cause('{"message": "starting"}\n' + json.dumps(record) + "\n") == cause


def test_the_ledgers_own_record() -> None:
    """It keeps an exception's text to itself: the type and the place are the cause."""
    code = (
        "import logging.config\nfrom flaskapp import logs\nlogging.config.dictConfig(logs.configuration('INFO'))\n"
        "try:\n    {}['TOKEN']\nexcept KeyError:\n    logging.exception('the settings are wrong')\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert logcause.cause(result.stderr) == "KeyError: the settings are wrong"


def test_trouble_of_a_process_that_runs() -> None:
    assert logcause.trouble("starting\nlistening on port 80\n") == ""
    assert logcause.trouble("starting\nconnection to db refused\n") == "connection to db refused"
    assert logcause.trouble(f"{KEY_ERROR}\n") == "KeyError: 'TOKEN' (/app/shop/db.py:7)"
