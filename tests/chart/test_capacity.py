"""What fits on one and two t4g.small nodes, by the requests of the rendered objects."""

from __future__ import annotations

import pytest

from benchmarks.capacity import room, scale
from tests.chart.render import RELEASE_VALUES, ROOT, Object, RenderError, merged, render

PLANS = {"one node": room.ONE_NODE, "two nodes": room.TWO_NODES}


@pytest.mark.parametrize("name", PLANS)
def test_a_rollout_fits(name: str) -> None:
    nodes, releases = PLANS[name]
    parts = room.asked(releases)
    assert {"web", "web, during a rollout", "database"} <= parts.keys()
    assert room.left(nodes).holds(sum(parts.values(), room.Room()))


def test_a_job_for_migrations_would_not_fit_on_one_node() -> None:
    """The reason for `migrations.mode` in environments/t4g-small.yaml."""
    objects = one_node({"migrations": {"mode": "job"}})
    needed = sum(room.rollout(objects).values(), room.Room())
    assert not room.left(1).holds(needed)
    assert needed.pods == room.left(1).pods + 1


def one_node(*layers: dict[str, object]) -> list[Object]:
    return render("flaskapp", merged(RELEASE_VALUES["t4g-small"], *layers))


@pytest.mark.parametrize("layer", [{"replicas": 2}, {"resources": {"requests": {"memory": "300Mi"}}}])
def test_more_is_seen(layer: dict[str, object]) -> None:
    assert not room.left(1).holds(sum(room.rollout(one_node(layer)).values(), room.Room()))


def test_the_document_has_the_tables() -> None:
    text = (ROOT / "docs/capacity.md").read_text()
    for nodes, releases in PLANS.values():
        table = "\n".join(room.table(nodes, room.asked(releases)))
        assert table in text, "run `make bench SUITE=capacity`, and put its tables into docs/capacity.md"
    for lines in (scale.by_nodes(), scale.by_rate()):
        assert "\n".join(lines) in text
    for item in room.NODE["system"] + room.NODE["beyond_one_node"]:
        assert item["source"] in text


def test_what_fits_is_what_the_chart_allows() -> None:
    """One pod more than the database has connections for is refused, and one more than fits has no room."""
    server = {"host": "db", "name": "ledger", "username": "ledger", "existingSecret": "a"}
    external = merged(RELEASE_VALUES["ledger"], {"postgresql": {"enabled": False}, "database": server})
    most = {"autoscaling": {"enabled": True, "maxReplicas": scale.most_pods()}}
    render("flaskapp", merged(external, most))
    with pytest.raises(RenderError, match="could ask for"):
        render("flaskapp", merged(external, most, {"autoscaling": {"maxReplicas": scale.most_pods() + 1}}))
    assert scale.serving(1) == 1
    two = {**room.asked(room.TWO_NODES[1])}
    two["web"] = two["web, during a rollout"] * scale.serving(2)
    assert room.left(2).holds(sum(two.values(), room.Room()))
    assert not room.left(2).holds(sum(two.values(), two["web, during a rollout"]))


def test_the_database_ends_it_on_many_nodes() -> None:
    assert scale.carried(1)[1] == scale.carried(2)[1] == "CPU of all nodes"
    assert scale.carried(5) == scale.carried(50)
