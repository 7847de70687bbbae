"""How PostgreSQL runs each statement on a large table: the plan's nodes, the indexes used, the time."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from benchmarks.service.setup import connect
from flaskapp.api import deployments, dora, services
from flaskapp_deploy.up.postgres import Postgres

SHOWN = 6  # distinct nodes, the top first


def questions(some: UUID, now: datetime) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return the service's own statements, as a public read runs them, with values."""
    month = {"from": (now - timedelta(days=29)).date(), "to": now.date(), "tz": "Europe/Berlin"}
    filters: dict[str, dict[str, Any]] = {
        "service": {"service": "service-1"},
        "environment": {"environment": "environment-1"},
        "status": {"status": "failed"},
        "status, no row": {"status": "started"},
        "service, environment": {"service": "service-1", "environment": "environment-2"},
        "service, status": {"service": "service-1", "status": "failed"},
        "a past week": {"since": now - timedelta(days=700), "until": now - timedelta(days=693)},
        "cursor": {"cursor_time": now - timedelta(days=700), "cursor_id": some},
    }
    asked: dict[str, tuple[str, dict[str, Any]]] = {
        "GET one": (deployments.GET.open.sql, {"id": some}),
        "list": (deployments.listing(()).open.sql, {}),
    }
    for name, values in filters.items():
        parts = tuple(part for part in deployments.FILTERS if part in {key.split("_")[0] for key in values})
        asked[f"list: {name}"] = (deployments.listing(parts).open.sql, values)
    both = {"from": "environment-1", "to": "environment-2"}
    return asked | {
        "overview": (services.OVERVIEW.open.sql, {}),
        "service": (services.STATE.open.sql, {"name": "service-1"}),
        "diff": (services.DIFF.open.sql, {**both, "names": sorted(both.values())}),
        "DORA": (dora.OF_ENVIRONMENT.open.sql, {**month, "environment": "environment-1", "service": None}),
        "DORA: service": (dora.OF_SERVICE.open.sql, {**month, "environment": "environment-1", "service": "service-1"}),
    }


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a plan's nodes, the top first."""
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def explain(server: Postgres, database: str) -> None:
    """Print a line for each statement; exit with an error if one reads the whole table of deployments."""
    whole = []
    print(f"\n{'milliseconds, plan':<28}{'time':>8}{'rows read':>11}  indexes; top nodes")
    with connect(server, database) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id FROM deployments ORDER BY started_at OFFSET 1000 LIMIT 1")
        some = cursor.fetchone()[0]
        for name, (statement, values) in questions(some, datetime.now(UTC)).items():
            for _ in range(2):  # the second time the pages are in memory
                cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", values)
            explained = cursor.fetchone()[0][0]
            plan_nodes = list(nodes(explained["Plan"]))
            indexes = dict.fromkeys(node["Index Name"] for node in plan_nodes if "Index Name" in node)
            on_table = [node for node in plan_nodes if node.get("Relation Name") == "deployments"]
            read = sum(
                (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
                for node in on_table
            )
            whole += [name for node in on_table if node["Node Type"] == "Seq Scan"]
            top = list(dict.fromkeys(node["Node Type"] for node in plan_nodes))[:SHOWN]
            used = ", ".join(index for index in indexes if index.startswith("deployments"))
            print(f"{name:<28}{explained['Execution Time']:>8.2f}{read:>11,.0f}  {used}; {' > '.join(top)}", flush=True)
    if whole:
        raise SystemExit(f"these read the whole table of deployments: {', '.join(whole)}")
