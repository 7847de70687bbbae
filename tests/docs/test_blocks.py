"""Every code block is checked by its kind: commands exist, values render, objects and SQL are valid."""

import ast
import json
import os
import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable
from itertools import pairwise

import psycopg2
import pytest
import yaml

from flaskapp_deploy.up.postgres import Postgres
from tests.chart.kubernetes_schemas import NEWEST, kubeconform
from tests.chart.render import WITHOUT_CLUSTER, merged, render_text, run_helm
from tests.docs import commands
from tests.docs.pages import BLOCKS, FILES, PAGES, ROOT, Block, Page
from tests.postgres import Database, postgres

__all__ = ["postgres"]

# Pages whose blocks a test runs from top to bottom.
EXECUTED = {
    "docs/tour.md": "tests/service/test_tour.py",
    "docs/your-application.md": "tests/examples/test_your_application.py",
}
# Exclude what depends on other blocks of a page: variables that they set or read.
SHELLCHECK = ["shellcheck", "--shell=bash", "--exclude=SC1091,SC2034,SC2086,SC2154,SC2155", "-"]
VALUES_OPTIONS = ("-f", "--values", "--set", "--set-string")
# What rendering without a cluster needs in addition.
OF_CHART = {
    "charts/flaskapp": ["--set=postgresql.auth.existingSecret=a,secrets.generate=null"],
    "charts/postgresql": ["--set=auth.existingSecret=a"],
}
IMAGE = {"image": {"repository": "registry.example.com/shop", "tag": "1"}}  # a block of values is a part of a file
# Placeholders.
PLACE = re.compile(r"…|\.\.\.")
TOP = sorted({path.relative_to(ROOT).parts[0] for path in FILES if path.parent != ROOT})
FILE = re.compile(rf"(?<![\w./:-])((?:{'|'.join(map(re.escape, TOP))})/[\w./*-]*\.[a-z]+[\w]*)")


def shell(block: Block) -> None:
    script = PLACE.sub("x", block.text)
    result = subprocess.run(SHELLCHECK, input=script, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
    assert not list(commands.faults(block.text))
    renders(block)


def renders(block: Block) -> None:
    """Render this repository's charts with the values of each helm command."""
    for command in re.findall(r"helm (?:install|upgrade|template) .*", block.text.replace("\\\n", " ")):
        words = [PLACE.sub("", word) for word in shlex.split(command.partition("|")[0], comments=True)]
        chart = next((word for word in words if word.startswith("charts/") and (ROOT / word).is_dir()), None)
        options = [f"{one}={two}" for one, two in pairwise(words) if one in VALUES_OPTIONS]
        options += [word for word in words if word.partition("=")[0] in VALUES_OPTIONS and "=" in word]
        if chart:
            run_helm(
                "template", "web", chart, *OF_CHART[chart], *(word.replace("-f=", "--values=") for word in options)
            )


def run(block: Block) -> None:
    """Run the block: it is cheap, and changes nothing outside build/."""
    shell(block)
    environment = {**os.environ, "PYTHONPATH": "src:deploy:."}
    command = ["bash", "-euo", "pipefail", "-c", block.text]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr


def values(block: Block) -> None:
    """Check the chart's values by its closed schema, or objects by Kubernetes' schemas."""
    for document in yaml.safe_load_all(PLACE.sub("x", block.text)):
        if "kind" in document:
            checked = kubeconform(yaml.safe_dump(document), NEWEST)
            assert checked.returncode == 0, checked.stdout
        else:
            render_text("flaskapp", merged(IMAGE, document, WITHOUT_CLUSTER))


def chart_of_postgresql(block: Block) -> None:
    render_text("postgresql", merged({"auth": {"existingSecret": "database"}}, yaml.safe_load(block.text)))


def sql(block: Block, database: Database) -> None:
    """Check the syntax: PostgreSQL parses the whole script first, so any other error means that it parsed."""
    try:
        database.execute(f"BEGIN;\n{block.text}\n; ROLLBACK")
    except psycopg2.errors.SyntaxError:
        raise
    except psycopg2.Error:
        pass


def insights(block: Block) -> None:
    """Check that a query of CloudWatch Logs uses fields of docs/service.md, under the key that Fluent Bit sets."""
    used = set(re.findall(r"log_processed\.(\w+)", block.text))
    documented = (ROOT / "docs/service.md").read_text().partition("## Logs")[2].partition("## ")[0]
    assert used
    assert used <= set(re.findall(r"`(\w+)`", documented))
    assert "Merge_Log_Key log_processed" in (ROOT / "infra/fluent-bit.yaml").read_text()


CHECKERS: dict[str, Callable[[Block], object]] = {
    "sh": shell,
    "sh run": run,
    "yaml": values,
    "yaml postgresql": chart_of_postgresql,
    "json": lambda block: json.loads(block.text),
    "toml": lambda block: tomllib.loads(block.text),
    "python": lambda block: ast.parse(block.text),
    "insights": insights,
    "mermaid": lambda block: None,  # test_architecture.py
    "sql": lambda block: None,  # below, with a server
}


@pytest.fixture(scope="session", autouse=True)
def _subchart() -> None:
    run_helm("dependency", "build", "--skip-refresh", "charts/flaskapp")


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_block(block: Block) -> None:
    assert block.kind, "say of what kind it is: ```sh"
    assert block.kind in CHECKERS, f"nothing checks a block of the kind {block.kind!r}"
    CHECKERS[block.kind](block)


def test_sql(postgres: Postgres) -> None:
    for block in BLOCKS:
        if block.kind == "sql":
            sql(block, Database(postgres, "postgres"))


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_commands_in_prose(page: Page) -> None:
    assert not [fault for code in page.code for fault in commands.faults(code)]


@pytest.mark.parametrize("page", [page for page in PAGES if page.path.name != "CHANGELOG.md"], ids=str)
def test_files_that_are_named_exist(page: Page) -> None:
    named = set(FILE.findall(page.path.read_text()))
    assert not sorted(name for name in named if not list(ROOT.glob(name.rstrip("."))))


def test_pages_that_are_executed_are() -> None:
    for page, test in EXECUTED.items():
        assert (ROOT / page).is_file()
        assert page.rpartition("/")[2] in (ROOT / test).read_text(), f"{test} does not read {page}"


SEEDED = [
    ("sh", "make upp"),
    ("sh", "make test SUITE=chrat"),
    ("sh", "make up APP=examples/nothing"),
    ("sh", "deploy/flaskapp-deploy relase"),
    ("sh", "deploy/flaskapp-deploy cluster up --node 2"),
    ("sh", "make bench SUITE=capcity"),
    ("sh", 'make bench SUITE=capacity PART="--mesure NAME"'),
    ("sh", "make reliability PART=--lst"),
    ("sh", "python -m benchmarks capacity"),
    ("sh", "python3 -m flaskapp_deploy.rehearsal.registry"),
    ("sh", "helm instal web charts/flaskapp"),
    ("sh", "helm upgrade web charts/flaskapp --instal"),
    ("sh", "kubectl get pods --selctor app=web"),
    ("sh", "helm install web charts/flaskapp --set replica=2"),
    ("sh", "helm install web charts/flaskapp -f environments/no.yaml"),
    ("sh", "if true; then"),
    ("sh run", "false"),
    ("yaml", "replica: 2"),
    ("yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: 5"),
    ("yaml postgresql", "maxConnection: 2"),
    ("json", "{"),
    ("toml", "a ="),
    ("insights", "filter log_processed.color = 1"),
    ("python", "print("),
    ("ruby", "print"),
    ("", "make up"),
]


@pytest.mark.parametrize(("kind", "text"), SEEDED, ids=lambda part: part.replace("\n", " "))
def test_a_mistake_is_seen(kind: str, text: str) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011 - each checker fails in its own way
        test_block(Block("page", 1, kind, text))


def test_a_mistake_in_sql_is_seen(postgres: Postgres) -> None:
    database = Database(postgres, "postgres")
    sql(Block("page", 1, "sql", "GRANT nothing TO nobody; SELECT 1"), database)
    with pytest.raises(psycopg2.errors.SyntaxError):
        sql(Block("page", 1, "sql", "SELECT 1; GRANT to"), database)


def test_messages_in_troubleshooting_are_ours() -> None:
    """Quoted messages occur in the code; those of other programs are listed here."""
    others = ("additional properties", "another operation", "context deadline exceeded")
    page = (ROOT / "docs/troubleshooting.md").read_text().partition("## Pods")[0]
    quoted = re.findall(r"^\| (?:a line such as )?`([^`]+ [^`]+)`", page, re.MULTILINE)
    sources = [path for top in ("deploy", "charts") for path in (ROOT / top).rglob("*.*")]
    texts = [path.read_text() for path in sources if path.suffix in (".py", ".yaml", ".tpl")]
    code = "\n".join([*texts, (ROOT / "Dockerfile").read_text()])
    assert len(quoted) > 6
    for message in quoted:
        parts = [part.strip(" ,;") for part in message.split("…")]
        explained = message.startswith(others) or all(part in code for part in parts) or "make up" in message
        assert explained, f"nothing says {message!r}"
