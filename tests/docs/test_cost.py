"""docs/cost.md has the tables that `make bench SUITE=cost` prints, and counts what infra/ creates."""

from datetime import date

import pytest
import yaml

from benchmarks.cost import __main__ as cost
from tests.docs.pages import ROOT
from tests.infra import template

PAGE = (ROOT / "docs/cost.md").read_text()


@pytest.mark.parametrize("table", [cost.plans, cost.release, cost.night, cost.credits, cost.prices])
def test_the_page_has_the_tables(table: object) -> None:
    printed = "\n".join(table())  # type: ignore[operator]
    assert printed in PAGE, "run `make bench SUITE=cost`, and put its tables into docs/cost.md"


def test_each_price_has_a_source_and_each_quantity_a_price() -> None:
    assert isinstance(cost.BOOK["read"], date)
    for item, entry in cost.BOOK["prices"].items():
        assert (entry["price"] is None) == (entry["source"] is None), item
    for plan in cost.BOOK["plans"].values():
        assert plan.keys() <= cost.BOOK["prices"].keys()


def test_sums_leave_out_what_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cost.monthly("node", 2) == pytest.approx(2 * 0.0168 * 730)
    monkeypatch.setitem(cost.BOOK["prices"]["backups"], "price", None)
    assert cost.monthly("backups", 1) is None
    assert any("| 10 x: ? |" in line for line in cost.plans())
    costs = [cost.monthly(item, quantity) or 0 for item, quantity in cost.BOOK["plans"]["production"].items()]
    assert f"**{sum(costs):.2f}**" in cost.plans()[-1]


def test_production_is_what_infra_makes() -> None:
    plans = cost.BOOK["plans"]
    groups = yaml.safe_load((ROOT / "infra/cluster.yaml").read_text())["managedNodeGroups"]
    nodes = sum(group["minSize"] for group in groups)
    disks = sum(group["volumeSize"] * group["minSize"] for group in groups)
    assert {group["instanceType"] for group in groups} == {"t4g.small"}
    assert plans["production"]["node"] == plans["production with RDS"]["node"] == nodes
    assert plans["production with RDS"]["disk"] == disks
    database = yaml.safe_load((ROOT / "charts/postgresql/values.yaml").read_text())["primary"]["persistence"]["size"]
    assert plans["production"]["disk"] == disks + int(database.removesuffix("Gi"))
    parameters = template.load("rds")["Parameters"]
    assert plans["production with RDS"]["database-disk"] == parameters["Storage"]["Default"]
    assert parameters["InstanceClass"]["Default"] in cost.BOOK["prices"]["database"]["what"]


def test_the_readme_has_the_sums() -> None:
    development, production = (
        sum(cost.monthly(item, quantity) or 0 for item, quantity in cost.BOOK["plans"][plan].items())
        for plan in ("development", "production")
    )
    readme = (ROOT / "README.md").read_text()
    assert f"| {development:.0f} and {production:.0f} dollars" in readme
    assert f"| {100 * cost.releasing():.0f} cents of CodeBuild" in readme
